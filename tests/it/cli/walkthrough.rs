//! The README's first walk, as a newcomer takes it, and the demo.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::program::{Answer, Place, Printing, Serving, ask_until, text};

/// What is typed in the terminals.
struct Terminal<'a> {
    place: &'a Place,
    port: u16,
}

impl Terminal<'_> {
    /// The command, for a broker that is not on the usual port.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(&[args, &["--json"]].concat());
        command.env("BROKER_PORT", self.port.to_string());
        command
    }

    fn types(&self, args: &[&str]) -> Value {
        let answer = Answer::of(&self.command(args).output().expect("the program starts"), args);
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.object()
    }

    /// A message by bob; its id.
    fn bob_writes(&self, to: &str, words: &str, priority: &str) -> String {
        let args = ["peer", "send", to, words, "--priority", priority, "--as", "bob"];
        let sent = self.types(&args);
        assert_eq!((&sent["queued"], &sent["to"]), (&json!(true), &json!(to)), "{sent}");
        text(&sent["messageId"])
    }

    /// Ada listens from here on.
    fn ada_listens(&self, more: &[&str]) -> Printing {
        let args = [&["peer", "listen", "--as", "ada"], more].concat();
        let mut listening = Printing::start(self.command(&args));
        let first = listening.next();
        assert_eq!((&first["type"], &first["peer"]), (&json!("listening"), &json!("team/ada")));
        listening
    }

    fn waiting(&self) -> Vec<String> {
        let queue = self.types(&["queue", "show", "team"]);
        let messages = queue["messages"].as_array().expect("a list");
        messages.iter().map(|row| text(&row["id"])).collect()
    }
}

/// The next message, which must be this one.
fn hears(listening: &mut Printing, id: &str, words: &str) {
    let message = listening.next_of("message");
    assert_eq!((&message["messageId"], &message["text"]), (&json!(id), &json!(words)));
    assert_eq!(message["from"], "bob", "{message}");
}

#[test]
fn the_first_walk_of_the_readme() {
    let place = Place::new();
    let broker = Serving::start(&place);
    let terminal = Terminal { place: &place, port: broker.port };
    let mesh = terminal.types(&["mesh", "create", "team"]);
    assert_eq!(text(&mesh["ownerSecretKey"]).len(), 128);
    let invite = terminal.types(&["invite", "create", "team", "--max-uses", "2"]);
    let link = text(&invite["link"]);
    assert!(link.starts_with("ic://join/"), "{link}");
    let members = ["ada", "bob"].map(|name| {
        let joined = terminal.types(&["peer", "join", &link, "--name", name]);
        assert_eq!(joined["meshId"], mesh["meshId"]);
        assert_eq!(joined["alreadyMember"], false);
        text(&joined["pubkey"])
    });
    let refused = Answer::of(
        &terminal.command(&["peer", "join", &link, "--name", "eve"]).output().expect("it starts"),
        &["peer", "join"],
    );
    assert_eq!(refused.failure().0, "invite_exhausted", "it was for two");

    let mut ada = terminal.ada_listens(&[]);
    let green = terminal.bob_writes("ada", "the build is green", "next");
    hears(&mut ada, &green, "the build is green");
    let here = terminal.types(&["peer", "list", "--as", "bob"]);
    let here = here["peers"].as_array().expect("a list");
    assert_eq!(here.len(), 1, "one session, the commands are none: {here:?}");
    assert_eq!((&here[0]["displayName"], &here[0]["status"]), (&json!("ada"), &json!("idle")));
    assert_eq!(here[0]["memberPubkey"], members[0].as_str());

    // Busy: the urgent one comes at once, the other when she is idle again.
    terminal.types(&["peer", "status", "working", "--as", "ada"]);
    let minute = terminal.bob_writes("ada", "when you have a minute", "next");
    let down = terminal.bob_writes("ada", "production is down", "now");
    hears(&mut ada, &down, "production is down");
    assert!(terminal.waiting().contains(&minute));
    terminal.types(&["peer", "status", "idle", "--as", "ada"]);
    hears(&mut ada, &minute, "when you have a minute");

    // Away: it waits, and is the first thing that she hears.
    ada.signal(Signal::INT);
    assert_eq!(ada.wait().code(), Some(0));
    let tomorrow = terminal.bob_writes("ada", "see you tomorrow", "next");
    ask_until("only that one waits", || terminal.waiting() == [tomorrow.as_str()]);
    let mut ada = terminal.ada_listens(&["--count", "1"]);
    hears(&mut ada, &tomorrow, "see you tomorrow");
    assert_eq!(ada.wait().code(), Some(0), "one was enough");
    ask_until("nothing waits", || terminal.waiting().is_empty());

    the_books(&terminal);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
}

/// What the broker wrote down: who and when, never what.
fn the_books(terminal: &Terminal<'_>) {
    let sent = terminal.types(&["audit", "tail", "team", "--type", "message_sent"]);
    assert_eq!(sent["total"], 4, "{sent}");
    let verdict = terminal.types(&["audit", "verify", "team"]);
    assert_eq!(verdict["valid"], true, "{verdict}");
    let rows = terminal.place.run(&["audit", "export", "team"]).out;
    assert_eq!(verdict["entries"], rows.lines().count());
    let words = ["build is green", "have a minute", "production", "tomorrow"];
    for file in files(terminal.place.path()) {
        let bytes = std::fs::read(&file).expect("readable");
        for word in words {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{word:?} in {}", file.display());
        }
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = folder.read_dir().expect("readable");
    let files = entries.map(|entry| entry.expect("readable").path());
    files.filter(|path| path.is_file()).collect()
}

#[test]
fn a_group_and_everyone() {
    let place = Place::new();
    let broker = Serving::start(&place);
    let terminal = Terminal { place: &place, port: broker.port };
    terminal.types(&["mesh", "create", "team"]);
    let link = text(&terminal.types(&["invite", "create", "team", "--max-uses", "2"])["link"]);
    for name in ["ada", "bob"] {
        terminal.types(&["peer", "join", &link, "--name", name]);
    }
    let mut ada = terminal.ada_listens(&["--group", "dev", "--summary", "reviewing"]);
    terminal.bob_writes("@ops", "not for her", "next");
    let dev = terminal.bob_writes("@dev", "deploy at noon?", "next");
    hears(&mut ada, &dev, "deploy at noon?");
    let lunch = terminal.bob_writes("*", "lunch is here", "next");
    hears(&mut ada, &lunch, "lunch is here");
    let here = terminal.types(&["peer", "list", "--as", "bob"]);
    assert_eq!(here["peers"][0]["groups"][0]["name"], "dev", "{here}");
    assert_eq!(here["peers"][0]["summary"], "reviewing", "{here}");
}

#[test]
fn the_demo_shows_what_each_peer_saw_and_what_the_broker_saw() {
    let place = Place::new();
    let demo = |args: &[&str]| {
        let output = place.command(args).env("TMPDIR", place.path()).output();
        let answer = Answer::of(&output.expect("the program starts"), args);
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(place.path().read_dir().expect("readable").next().is_none(), "nothing is left");
        answer
    };
    let transcript = demo(&["demo", "--json"]).object();
    assert_eq!(transcript["audit"]["valid"], true);
    let steps = transcript["steps"].as_array().expect("a list");
    let lines: Vec<&Value> =
        steps.iter().flat_map(|step| step["lines"].as_array().expect("a list")).collect();
    let seen_by = |who: &str| -> Vec<&str> {
        let seen = lines.iter().filter(|line| line["who"] == who && line["what"] == "sees");
        seen.map(|line| line["text"].as_str().expect("text")).collect()
    };
    let direct = "from alice: the build is green, please review";
    let (group, all) = ("from alice: deploy at noon?", "from dave: lunch is here");
    let later = "from carol: fixed it, see my branch";
    assert_eq!(seen_by("alice"), [all]);
    assert_eq!(seen_by("bob"), [direct, group, all, later]);
    let kept = "from all: deploy: \"at noon\"";
    assert_eq!(seen_by("carol"), [group, all, kept], "backend/api is below backend");
    assert_eq!(seen_by("dave"), Vec::<&str>::new());
    let broker = seen_by("broker").join("\n");
    assert!(broker.contains("alice to bob's key: ") && broker.contains("carol to "), "{broker}");
    // In base64, too: that is how a message in clear would lie there.
    for words in ["build is green", "deploy at noon", "ZGVwbG95", "lunch is here", "bHVuY2gg"] {
        assert!(!broker.contains(words), "{broker}");
    }
    assert!(!broker.contains("see my branch") && !broker.contains("at noon"), "{broker}");
    let noted = |who: &str, words: &str| {
        let said = |line: &&Value| line["text"].as_str().is_some_and(|text| text.contains(words));
        lines.iter().any(|line| line["who"] == who && said(line))
    };
    assert!(noted("bob", "nobody noticed that he was away"), "the same presence: {transcript}");
    let rows = lines.iter().filter(|line| line["who"] == "chain").count();
    assert_eq!(transcript["audit"]["entries"], rows);
    let sent =
        |line: &&&Value| line["text"].as_str().is_some_and(|text| text.contains("message_sent"));
    assert_eq!(lines.iter().filter(sent).count(), 4, "one row per message");

    let people = demo(&["demo"]).out;
    for words in [direct, group, all, kept, later, "verified", "peer join <link>"] {
        assert!(people.contains(words), "{words:?} in {people}");
    }
    assert!(!people.contains('\u{1b}'), "colours are for terminals");
}

#[test]
fn a_key_for_a_program() {
    let place = Place::new();
    let broker = Serving::start(&place);
    let terminal = Terminal { place: &place, port: broker.port };
    terminal.types(&["mesh", "create", "team"]);
    let link = text(&terminal.types(&["invite", "create", "team", "--max-uses", "1"])["link"]);
    terminal.types(&["peer", "join", &link, "--name", "ada"]);
    let create = ["peer", "apikey", "create", "ci", "--can", "read", "--expires", "1h"];
    let made = terminal.types(&create);
    assert!(text(&made["secret"]).starts_with("cm_") && made["expiresAt"].is_string(), "{made}");
    let id = text(&made["id"]);
    let listed = terminal.types(&["peer", "apikey", "list"]);
    assert_eq!(
        (&listed["keys"][0]["id"], &listed["keys"][0]["revokedAt"]),
        (&json!(id), &json!(null))
    );
    assert!(!listed.to_string().contains(&text(&made["secret"])));
    let revoke = ["peer", "apikey", "revoke", &id[..8]];
    assert_eq!(terminal.types(&revoke)["id"], json!(id));
    let unknown = ["peer", "apikey", "revoke", "zzz"];
    let refused = Answer::of(&terminal.command(&unknown).output().expect("it starts"), &unknown);
    assert!(refused.failure().1.contains("no such key"));
    for file in files(place.path()) {
        let bytes = std::fs::read(&file).expect("readable");
        let secret = text(&made["secret"]);
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "a secret in {}", file.display());
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
}
