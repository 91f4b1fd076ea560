//! Does to a broker what the book notes, and compares.

use std::collections::HashMap;
use std::time::Duration;

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::id::Key;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Log;
use super::book::{Book, Listing, Number, Place, Target, Who};
use crate::harness::raw::session_hello_frame;
use crate::harness::{Member, Node, PATIENCE, Raw, until};

/// The member of each session. The last is the observer, which sees it all.
const MEMBERS: [usize; 7] = [0, 0, 1, 2, 2, 3, 4];
const OBSERVER: Who = MEMBERS.len() - 1;
const GROUPS: [&str; 3] = ["red", "red/hot", "blue"];
const PRIORITIES: [&str; 3] = ["now", "next", "low"];
const STATUSES: [&str; 3] = ["idle", "working", "dnd"];
const STEPS: usize = 120;
const GRACE_MS: i64 = 1_500;
/// After this long what is not confirmed comes again.
const CLAIM_MS: i64 = 1_500;

struct World {
    node: Node,
    members: Vec<Member>,
    keys: Vec<SecretKey>,
    sockets: Vec<Option<Raw>>,
    by_id: HashMap<String, Number>,
    /// Events that the observer saw, by name and key.
    events: HashMap<(String, String), i64>,
    book: Book,
    rng: StdRng,
    log: Log,
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(count.unsigned_abs())
}

/// Plays the plan of that seed.
pub async fn run(seed: u64, log: Log) {
    let mut world = World::new(seed, log).await;
    world.connect(OBSERVER).await;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.finish().await;
}

impl World {
    async fn new(seed: u64, log: Log) -> Self {
        let node = Node::start_with(|config| {
            config.presence.lease_grace_ms = GRACE_MS;
            config.message.claim_ms = CLAIM_MS;
        })
        .await;
        let mut members = Vec::new();
        for name in ["ada", "bob", "cyd", "dee", "observer"] {
            members.push(node.member(name).await);
        }
        Self {
            node,
            members,
            keys: MEMBERS.iter().map(|_| SecretKey::generate()).collect(),
            sockets: MEMBERS.iter().map(|_| None).collect(),
            by_id: HashMap::new(),
            events: HashMap::new(),
            book: Book::new(&MEMBERS, milliseconds(GRACE_MS), milliseconds(CLAIM_MS)),
            rng: StdRng::seed_from_u64(seed),
            log,
        }
    }

    fn note(&self, step: String) {
        self.log.lock().push(step);
    }

    fn member(&self, who: Who) -> &Member {
        &self.members[MEMBERS[who]]
    }

    /// What others call the session.
    fn key(&self, who: Who) -> Key {
        if who == OBSERVER { self.member(who).pubkey() } else { self.keys[who].public_key() }
    }

    fn socket(&mut self, who: Who) -> &mut Raw {
        self.sockets[who].as_mut().expect("it is connected")
    }

    /// One of the sessions, but not the observer, that are fit.
    fn pick(&mut self, fit: impl Fn(&Self, Who) -> bool) -> Option<Who> {
        let all: Vec<Who> = (0..OBSERVER).filter(|who| fit(self, *who)).collect();
        all.choose(&mut self.rng).copied()
    }

    fn pick_here(&mut self) -> Option<Who> {
        self.pick(|world, who| world.book.sessions[who].is_here())
    }

    // --- steps ---------------------------------------------------------------

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..15 => self.someone_comes().await,
            15..22 => self.someone_goes().await,
            22..62 => self.someone_sends().await,
            62..72 => self.someone_changes_status().await,
            72..80 => self.someone_changes_groups().await,
            80..87 => self.someone_withholds_or_not().await,
            87..90 => self.someone_says_what_it_does().await,
            90..96 => {
                self.settle().await;
                self.compare_lists().await;
            }
            96..98 => self.a_claim_runs_out().await,
            _ => self.a_grace_runs_out().await,
        }
        self.absorb_all().await;
    }

    /// Somebody who is away; or a second socket of somebody who is here.
    async fn someone_comes(&mut self) {
        let again = self.rng.random_ratio(1, 6);
        if let Some(who) = self.pick(|world, who| world.book.sessions[who].is_here() == again) {
            self.connect(who).await;
        }
    }

    async fn connect(&mut self, who: Who) {
        let member = self.member(who).clone();
        let (raw, ack) = if who == OBSERVER {
            Raw::hello_with(&self.node, &member, |_| {}).await
        } else {
            // Each works in a folder of its own: none of them is another one, started again.
            let mut hello = session_hello_frame(&self.node.mesh, &member, &self.keys[who]);
            hello["cwd"] = json!(format!("/work/{who}"));
            Raw::greet(&self.node, hello).await
        };
        let presence = ack["presenceId"].as_str().expect("a presence").to_owned();
        self.note(format!("{who} connects: {presence}"));
        if let Some(mut old) = self.sockets[who].replace(raw) {
            assert_eq!(old.closed().await, (1000, "session_replaced".to_owned()));
        }
        self.book.connected(who, &presence);
    }

    async fn someone_goes(&mut self) {
        let Some(who) = self.pick_here() else { return };
        let politely = self.rng.random();
        self.note(format!("{who} goes, politely: {politely}"));
        self.book.dropped(who);
        let raw = self.sockets[who].take().expect("it is connected");
        if politely {
            raw.goodbye().await;
        }
    }

    async fn someone_sends(&mut self) {
        let Some(who) = self.pick_here() else { return };
        for _ in 0..self.rng.random_range(1..=4) {
            let target = self.pick_target(who);
            let priority = PRIORITIES.choose(&mut self.rng).expect("some");
            self.send(who, target, priority).await;
        }
    }

    fn pick_target(&mut self, who: Who) -> Target {
        match self.rng.random_range(0..10) {
            0..4 => loop {
                let member = self.rng.random_range(0..=MEMBERS[OBSERVER]);
                if member != MEMBERS[who] {
                    return Target::Member(member);
                }
            },
            4..7 => {
                let other = self.pick(|_, other| other != who).expect("others");
                Target::Session(other)
            }
            7..9 => Target::Group(GROUPS.choose(&mut self.rng).expect("some")),
            _ => Target::Everyone,
        }
    }

    async fn send(&mut self, who: Who, target: Target, priority: &'static str) {
        let spec = match target {
            Target::Session(other) => self.key(other).to_string(),
            Target::Member(member) => self.members[member].pubkey().to_string(),
            Target::Group(group) => format!("@{group}"),
            Target::Everyone => "*".to_owned(),
        };
        let number = self.book.messages.len();
        let text = format!("{number:08}");
        let ack = self.socket(who).send(&spec, priority, &text).await;
        self.note(format!("{who} sends {number} to {target:?} as {priority}: {ack}"));
        if !self.book.is_known(target) {
            assert_eq!(ack["queued"], false, "{ack}");
            assert!(ack["error"].as_str().is_some_and(|error| error.contains("no connected peer")));
            return;
        }
        assert_eq!(ack["queued"], true, "{ack}");
        let id = ack["messageId"].as_str().expect("an id");
        self.by_id.insert(id.to_owned(), number);
        self.book.accepted(id, text, who, target, priority);
    }

    async fn someone_changes_status(&mut self) {
        let Some(who) = self.pick_here() else { return };
        let status = *STATUSES.choose(&mut self.rng).expect("some");
        self.change_status(who, status).await;
    }

    async fn change_status(&mut self, who: Who, status: &'static str) {
        // What was on its way to an idle peer is not held any more.
        self.settle().await;
        self.note(format!("{who} is {status}"));
        let request = json!({ "type": "set_status", "status": status });
        let answer = self.socket(who).ask(request).await;
        assert_eq!(answer["type"], "ack", "{answer}");
        let before = self.socket(who).heard();
        if status == "idle" {
            // What was held may have come before the answer.
            self.book.set_status(who, status);
            self.take(who, before);
        } else {
            self.take(who, before);
            self.book.set_status(who, status);
        }
    }

    async fn someone_changes_groups(&mut self) {
        let Some(who) = self.pick_here() else { return };
        let group = *GROUPS.choose(&mut self.rng).expect("some");
        let joins = !self.book.sessions[who].groups.contains(&group);
        // Membership counts when a message arrives, or comes again.
        self.settle().await;
        self.confirm(who).await;
        self.note(format!("{who} joins {group}: {joins}"));
        let kind = if joins { "join_group" } else { "leave_group" };
        let answer = self.socket(who).ask(json!({ "type": kind, "name": group })).await;
        assert_eq!(answer["type"], "ack", "{answer}");
        let groups = &mut self.book.sessions[who].groups;
        if joins {
            groups.push(group);
        } else {
            groups.retain(|own| *own != group);
        }
    }

    async fn someone_withholds_or_not(&mut self) {
        let Some(who) = self.pick_here() else { return };
        let withholds = !self.book.sessions[who].withholds;
        self.note(format!("{who} withholds its confirmations: {withholds}"));
        self.book.sessions[who].withholds = withholds;
    }

    async fn someone_says_what_it_does(&mut self) {
        let Some(who) = self.pick_here() else { return };
        let summary = format!("work {}", self.rng.random_range(0..1000));
        self.note(format!("{who} does {summary}"));
        let request = json!({ "type": "set_summary", "summary": summary });
        assert_eq!(self.socket(who).ask(request).await["type"], "ack");
        self.book.sessions[who].summary = Some(summary);
    }

    /// Something that somebody has not confirmed comes again.
    async fn a_claim_runs_out(&mut self) {
        self.settle().await;
        let due = |world: &Self, who: Who| world.book.comes_again(who);
        let Some(who) = self.pick(|world, who| due(world, who).is_some()) else { return };
        let number = due(self, who).expect("just picked");
        self.note(format!("{who} waits until {number} comes again"));
        let id = self.book.messages[number].id.clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frames = self.socket(who).so_far().await;
            let came = frames.iter().any(|frame| frame["messageId"] == id.as_str());
            self.take(who, frames);
            if came {
                return;
            }
            assert!(Instant::now() < deadline, "{number} does not come again to {who}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Somebody who is away is not waited for any more.
    async fn a_grace_runs_out(&mut self) {
        let away =
            |world: &Self, who: Who| matches!(world.book.sessions[who].place, Place::Away(_));
        let Some(who) = self.pick(away) else { return };
        self.note(format!("{who} does not come back in time"));
        let key = self.key(who);
        until("a presence ends", async || {
            let rows = self.list().await;
            !rows.contains_key(key.as_str())
        })
        .await;
        self.book.ended(who);
    }

    // --- hearing ---------------------------------------------------------------

    /// Reads what has come for everybody who is here; who does not withhold it
    /// confirms.
    async fn absorb_all(&mut self) {
        for who in 0..MEMBERS.len() {
            if !self.book.sessions[who].is_here() {
                continue;
            }
            let frames = self.socket(who).so_far().await;
            self.take(who, frames);
            if !self.book.sessions[who].withholds {
                self.confirm(who).await;
            }
        }
    }

    fn take(&mut self, who: Who, frames: Vec<Value>) {
        for frame in frames {
            assert_eq!(frame["type"], "push", "{frame}");
            if frame["subtype"] != "system" {
                let id = frame["messageId"].as_str().expect("an id");
                let number = *self.by_id.get(id).unwrap_or_else(|| panic!("unknown: {frame}"));
                self.note(format!("  {who} gets {number}"));
                let message = &self.book.messages[number];
                assert_eq!(frame["ciphertext"], message.text.as_str(), "{frame}");
                assert_eq!(frame["priority"], message.priority, "{frame}");
                assert_eq!(frame["senderPubkey"], json!(self.key(message.by)), "{frame}");
                self.book.received(who, number);
            } else if who == OBSERVER {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let event = (text(&frame["event"]), text(&frame["eventData"]["pubkey"]));
                *self.events.entry(event).or_default() += 1;
            }
        }
    }

    /// Confirms all that a session has in hand.
    async fn confirm(&mut self, who: Who) {
        let in_hand = self.book.sessions[who].in_hand.clone();
        for number in &in_hand {
            let id = self.book.messages[*number].id.clone();
            let ack = json!({ "type": "client_ack", "brokerMessageId": id });
            let answer = self.socket(who).ask(ack).await;
            assert_eq!(answer["type"], "ack", "{answer}");
        }
        // These came before the broker heard of it.
        let before = self.socket(who).heard();
        self.take(who, before);
        for number in in_hand {
            self.note(format!("  {who} confirms {number}"));
            let message = &self.book.messages[number];
            let is_direct = matches!(message.target, Target::Session(_) | Target::Member(_));
            let ask = json!({ "type": "message_status", "messageId": message.id });
            if is_direct {
                let socket = self.socket(who);
                until("a confirmation is on disk", async || {
                    socket.ask(ask.clone()).await["delivered"] == true
                })
                .await;
            }
            self.book.confirmed(who, number);
        }
    }

    /// Asks everybody until all has come that should have.
    async fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.absorb_all().await;
            let Some((who, number)) = self.book.due() else { return };
            if Instant::now() > deadline {
                let message = &self.book.messages[number];
                panic!("{number} has not come to {who}: {message:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    // --- comparing ---------------------------------------------------------------

    /// The observer's list of peers, by their keys.
    async fn list(&mut self) -> HashMap<String, Value> {
        let answer = self.socket(OBSERVER).ask(json!({ "type": "list_peers" })).await;
        let heard = self.socket(OBSERVER).heard();
        self.take(OBSERVER, heard);
        let rows = answer["peers"].as_array().expect("a list").clone();
        let count = rows.len();
        let key = |row: &Value| row["pubkey"].as_str().expect("a key").to_owned();
        let rows: HashMap<String, Value> = rows.into_iter().map(|row| (key(&row), row)).collect();
        assert_eq!(rows.len(), count, "nobody is listed twice: {answer}");
        rows
    }

    async fn compare_lists(&mut self) {
        let mut rows = self.list().await;
        for (who, session) in self.book.sessions.iter().enumerate() {
            let listing = self.book.listing(who);
            let Some(row) = rows.remove(self.key(who).as_str()) else {
                assert_ne!(listing, Listing::Must, "{who} is not listed: {session:?}");
                continue;
            };
            assert_ne!(listing, Listing::MustNot, "{who} is listed: {session:?}");
            let groups: Vec<&str> = row["groups"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|group| group["name"].as_str().expect("a name"))
                .collect();
            assert_eq!(groups, session.groups, "{who}");
            assert_eq!(row["status"], session.status, "{who}");
            assert_eq!(row["summary"], json!(session.summary), "{who}");
            assert_eq!(row["displayName"], self.member(who).name.as_str());
            assert_eq!(row["memberPubkey"], json!(self.member(who).pubkey()));
        }
        assert!(rows.is_empty(), "nobody else: {rows:?}");
    }

    /// Everybody comes, has time and confirms: then nothing is left.
    async fn finish(&mut self) {
        self.note("the end".to_owned());
        for who in 0..OBSERVER {
            if !self.book.sessions[who].is_here() {
                self.connect(who).await;
            }
            self.book.sessions[who].withholds = false;
            self.change_status(who, "idle").await;
        }
        self.settle_in_full().await;
        self.compare_lists().await;
        until("the queue is empty", async || {
            self.node.store.messages.depth().await.expect("the store answers") == 0
        })
        .await;
        for who in 0..OBSERVER {
            self.connect(who).await;
        }
        self.absorb_all().await;
        self.settle_in_full().await;
        self.count().await;
    }

    async fn settle_in_full(&mut self) {
        self.settle().await;
        self.absorb_all().await;
        let left: Vec<_> = self.book.sessions.iter().map(|session| session.in_hand.len()).collect();
        assert_eq!(left, [0; MEMBERS.len()]);
    }

    async fn count(&mut self) {
        let (begun, over) = self.book.lives();
        until("every event has come", async || {
            self.absorb_all().await;
            let seen = |event: &str| -> i64 {
                self.events.iter().filter(|((name, _), _)| name == event).map(|count| count.1).sum()
            };
            (seen("peer_joined"), seen("peer_left")) == (begun - 1, over)
        })
        .await;
        for who in 0..OBSERVER {
            let lives = i64::from(self.book.sessions[who].lives);
            let seen = |event: &str| {
                self.events.get(&(event.to_owned(), self.key(who).to_string())).copied()
            };
            assert_eq!(seen("peer_joined").unwrap_or(0), lives, "{who}");
            assert_eq!(seen("peer_left").unwrap_or(0), lives - 1, "{who}");
        }
        let sent = i64::try_from(self.book.messages.len()).expect("few");
        assert_eq!(self.node.audit_count("message_sent").await, sent);
        assert_eq!(self.node.audit_count("peer_joined").await, begun);
        assert_eq!(self.node.audit_count("peer_left").await, over);
        assert!(self.node.audit_is_valid().await);
    }
}
