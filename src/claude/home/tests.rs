use std::process::{Child, Command, Stdio};

use super::*;
use crate::id::{MemberId, MeshId};
use crate::keyring::KeyFile;

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

struct Place {
    home: Home,
    _folder: tempfile::TempDir,
}

impl Place {
    fn new(peers: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in peers {
            let secret = SecretKey::generate();
            let url = "ws://localhost/ws".to_owned();
            let mut file = KeyFile::new(MeshId::from("m"), "team".to_owned(), name, url, &secret);
            file.member_id = Some(MemberId::generate());
            let path = keyring::path_of(folder.path(), "team", name).expect("a name");
            file.write(&path).expect("written");
        }
        Self { home: Home::at(folder.path()), _folder: folder }
    }

    fn bind(&self, process: Process, session: &str, start: Start) -> String {
        self.bind_as(process, session, start, None).expect("bound").session
    }

    fn bind_as(
        &self,
        process: Process,
        session: &str,
        start: Start,
        peer: Option<&str>,
    ) -> Option<Binding> {
        let host = Host { session, process, start, inbox: None };
        self.home.bind(&host, peer, NOW).expect("no error")
    }
}

/// A host that runs until it is dropped.
struct Running(Child);

impl Running {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("600").stdin(Stdio::null()).spawn().expect("started"))
    }

    fn process(&self) -> Process {
        Process::of(i32::try_from(self.0.id()).expect("fits"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_session_keeps_its_key_and_spool_when_it_is_cleared_or_compacted() {
    let place = Place::new(&["ada"]);
    let host = Running::new();
    let first = place.bind(host.process(), "h1", Start::New);
    assert_eq!(place.bind(host.process(), "h1", Start::GoesOn), first, "compacted");
    assert_eq!(place.bind(host.process(), "h2", Start::GoesOn), first, "cleared");
    let bound = place.home.of_process(host.process()).expect("read").expect("bound");
    assert_eq!((bound.session.as_str(), bound.host_session.as_str()), (first.as_str(), "h2"));
    let session = place.home.session(&first).expect("read").expect("there");
    assert_eq!(session.peer, "team/ada");
    assert!(session.secret().is_ok());
}

#[test]
fn a_resumed_session_finds_its_own_again_in_a_new_process() {
    let place = Place::new(&["ada"]);
    let host = Running::new();
    let first = place.bind(host.process(), "h1", Start::New);
    let cleared = place.bind(host.process(), "h2", Start::GoesOn);
    drop(host);
    let again = Running::new();
    assert_eq!(place.bind(again.process(), "h1", Start::Resumed), first);
    assert_eq!(cleared, first);
    let other = Running::new();
    assert_ne!(place.bind(other.process(), "h3", Start::New), first, "a new one has its own");
    // Another session is resumed inside a running process.
    assert_ne!(place.bind(again.process(), "h9", Start::Resumed), first);
    assert_eq!(place.bind(again.process(), "h1", Start::Resumed), first);
}

#[test]
fn two_running_hosts_never_have_the_same_session() {
    let place = Place::new(&["ada"]);
    let (one, two) = (Running::new(), Running::new());
    let first = place.bind(one.process(), "h1", Start::New);
    let second = place.bind(two.process(), "h1", Start::Resumed);
    assert_ne!(first, second, "the same session of the host, opened twice");
    assert_eq!(place.bind(one.process(), "h1", Start::Unknown), first);
    assert_eq!(place.bind(two.process(), "h1", Start::Unknown), second);
    drop(one);
    let third = Running::new();
    assert_eq!(place.bind(third.process(), "h1", Start::Resumed), first, "free again");
}

#[test]
fn a_hook_without_a_start_before_it_binds_too() {
    let place = Place::new(&["ada"]);
    let host = Running::new();
    let first = place.bind(host.process(), "h1", Start::Unknown);
    assert_eq!(place.bind(host.process(), "h1", Start::Unknown), first);
    assert_eq!(place.bind(host.process(), "h2", Start::Unknown), first, "its start was missed");
}

#[test]
fn what_was_guessed_gives_way_to_what_a_hook_says() {
    let place = Place::new(&["ada"]);
    let earlier = Running::new();
    let old = place.bind(earlier.process(), "h1", Start::New);
    drop(earlier);
    let (host, wrapper) = (Running::new(), Running::new());
    let guess = place.bind_as(wrapper.process(), "h1", Start::Guessed, None).expect("bound");
    assert!(guess.guessed);
    assert_eq!(guess.session, old);
    let said = place.bind_as(host.process(), "h1", Start::Resumed, None).expect("bound");
    assert!(!said.guessed);
    assert_eq!(said.session, old, "a guess holds nothing");
    let after = place.bind_as(host.process(), "h7", Start::Guessed, None).expect("bound");
    assert_eq!(after, said, "and changes nothing");
}

#[test]
fn the_peer_is_the_only_one_or_the_one_that_is_named() {
    let nobody = Place::new(&[]);
    let host = Running::new();
    assert_eq!(nobody.bind_as(host.process(), "h1", Start::New, None), None);
    assert!(!nobody.home.folder.exists(), "whoever has not joined has nothing written");
    let place = Place::new(&["ada", "bob"]);
    let several = Host { session: "h1", process: host.process(), start: Start::New, inbox: None };
    assert!(place.home.bind(&several, None, NOW).is_err());
    let bob = place.bind_as(host.process(), "h1", Start::New, Some("bob")).expect("bound");
    let session = place.home.session(&bob.session).expect("read").expect("there");
    assert_eq!(session.peer, "team/bob");
    drop(host);
    let again = Running::new();
    let ada = place.bind_as(again.process(), "h1", Start::Resumed, Some("team/ada"));
    assert_ne!(ada.expect("bound").session, bob.session, "another peer's is another session");
}

#[test]
fn the_hosts_inbox_is_handed_over_and_shown_to_nobody() {
    let place = Place::new(&["ada"]);
    let host = Running::new();
    let inbox = HostInbox { socket: "/tmp/x.sock".to_owned(), token: Some("s3cret".to_owned()) };
    let start =
        Host { session: "h1", process: host.process(), start: Start::New, inbox: Some(&inbox) };
    place.home.bind(&start, None, NOW).expect("bound");
    place.bind(host.process(), "h2", Start::GoesOn);
    let bound = place.home.of_process(host.process()).expect("read").expect("bound");
    assert_eq!(bound.inbox.as_ref(), Some(&inbox), "kept where a later hook says nothing");
    assert!(!format!("{bound:?}").contains("s3cret"));
    let session = place.home.session(&bound.session).expect("read").expect("there");
    assert!(!format!("{session:?}").contains(&session.secret_key));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        for folder in ["", "processes", "hosts", "sessions"] {
            let folder = place.home.folder.join(folder);
            assert_eq!(mode(&folder), 0o700, "{}", folder.display());
            for path in entries(&folder).expect("listed") {
                let expected = if path.is_dir() { 0o700 } else { 0o600 };
                assert_eq!(mode(&path), expected, "{}", path.display());
            }
        }
    }
}

#[test]
fn processes_that_ended_are_forgotten_and_what_they_left_is_found() {
    let place = Place::new(&["ada"]);
    let (gone, ends) = (Running::new(), Running::new());
    let process = gone.process();
    let left = place.bind(process, "h1", Start::New);
    let ended = place.bind(ends.process(), "h2", Start::New);
    drop(gone);
    place.home.unbind(ends.process()).expect("unbound");
    let host = Running::new();
    let own = place.bind(host.process(), "h3", Start::New);
    assert!(place.home.of_process(process).expect("read").is_none());
    let found = place.home.left_behind("team/ada", &own).expect("listed");
    assert_eq!(found, [ended, left]);
    assert!(place.home.left_behind("team/bob", &own).expect("listed").is_empty());
}

#[test]
fn ids_of_hosts_are_no_paths() {
    let place = Place::new(&["ada"]);
    let host = Running::new();
    for odd in ["../../x", "/etc/passwd", "", "a\0b", "..", &"x".repeat(5_000)] {
        place.bind(host.process(), odd, Start::New);
    }
    for path in entries(&place.home.folder.join("hosts")).expect("listed") {
        assert_eq!(path.file_stem().expect("a name").len(), 32, "{}", path.display());
    }
}

#[test]
fn bindings_of_many_hosts_are_bounded() {
    let place = Place::new(&["ada"]);
    let folder = place.home.folder.join("hosts");
    private::make_folder(&folder).expect("made");
    for i in 0..limits::BINDINGS_MAX + 20 {
        fs::write(folder.join(format!("{i}.json")), "{}").expect("written");
    }
    let host = Running::new();
    place.bind(host.process(), "h1", Start::New);
    assert_eq!(entries(&folder).expect("listed").len(), limits::BINDINGS_MAX);
    assert!(folder.join("h1.json").exists());
}

#[test]
fn what_a_sessions_process_says_is_there_for_the_status_line() {
    let place = Place::new(&["ada"]);
    let host = Running::new();
    let session = place.bind(host.process(), "h1", Start::New);
    assert_eq!(place.home.live(&session).expect("read"), None);
    let live =
        Live { connected: true, peers: 5, online: 3, channel_proven: false, at_ms: NOW.as_ms() };
    place.home.say(&session, &live).expect("written");
    assert_eq!(place.home.live(&session).expect("read"), Some(live));
}
