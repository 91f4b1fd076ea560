//! `claudemesh-broker cluster`: three nodes, Postgres and Redis, as children of
//! the program.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::client::{self, Client, ClientOptions, Inbound, Inbox};
use claudemesh_broker::protocol::Priority;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::program::{Answer, Place, Printing, ask_until, text};
use crate::harness::{PATIENCE, until};

/// Making a database and starting five programs, on a busy machine.
const START: Duration = Duration::from_secs(90);

/// A cluster that runs; taken down when dropped.
struct Up {
    place: Place,
    child: Printing,
    said: Value,
}

/// A folder that the servers' user can enter, as root's own cannot be.
fn open_place() -> Place {
    let place = Place::new();
    std::fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("ours");
    place
}

fn command(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command(&[&["cluster"], args, &["--json"]].concat());
    let path = std::env::var("PATH").expect("a PATH");
    command.env("PATH", path).env("DRAIN_SECONDS", "6").env("REDELIVERY_SECONDS", "2");
    command
}

fn refused(place: &Place, args: &[&str]) -> (String, String) {
    Answer::of(&command(place, args).output().expect("it starts"), args).failure()
}

impl Up {
    fn start() -> Self {
        Self::start_in(open_place())
    }

    fn start_in(place: Place) -> Self {
        let mut child = Printing::start(command(&place, &["up", "--port", "0"]));
        let said = child.next_within(START);
        assert_eq!(said["status"], "up", "{said}");
        Self { place, child, said }
    }

    fn node(&self, index: usize) -> &Value {
        &self.said["nodes"][index]
    }

    fn url(&self, index: usize) -> String {
        text(&self.node(index)["url"])
    }

    /// Every process that was started.
    fn pids(&self) -> Vec<i32> {
        let nodes = self.said["nodes"].as_array().expect("nodes").iter();
        let all = nodes.chain([&self.said["postgres"], &self.said["redis"]]);
        all.map(|process| i32::try_from(process["pid"].as_i64().expect("a pid")).expect("small"))
            .collect()
    }

    /// Another command of the program, on this cluster.
    fn run(&self, args: &[&str]) -> Value {
        let file = std::fs::read_to_string(text(&self.said["environment"])).expect("env.sh");
        let lines = file.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        let mut command = self.place.command(&[args, &["--json"]].concat());
        command.envs(lines.map(|(name, value)| (name, value.trim_matches('\''))));
        Answer::of(&command.output().expect("it starts"), args).object()
    }

    /// A new member of the mesh `team`, connected to that node.
    async fn peer(&self, name: &str, node: usize) -> (ClientOptions, Client, Inbox) {
        let invite = self.run(&["invite", "create", "team"]);
        let key = SecretKey::generate();
        let url = self.url(node);
        let joined = client::join(Some(&url), &text(&invite["link"]), &key, name).await;
        let options = ClientOptions::session(joined.expect("joined").identity(key));
        let (client, inbox) = Client::connect(&url, options.clone()).await.expect("connected");
        (options, client, inbox)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Also when the test failed, or killed it.
        let _ = command(&self.place, &["down"]).output();
        // Its servers' user owns some of it.
        let _ = std::fs::remove_dir_all(self.place.path().join("cluster"));
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A child that nobody has waited for yet is gone, too.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("it lives");
}

async fn message(inbox: &mut Inbox) -> String {
    let reading = async {
        loop {
            let inbound = inbox.recv().await.expect("connected");
            if let Inbound::Message { .. } = inbound {
                return inbound.text().expect("a text").to_owned();
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("a message")
}

#[tokio::test]
async fn peers_of_different_nodes_talk_and_an_interrupt_leaves_nothing_behind() {
    let mut up = Up::start();
    up.run(&["mesh", "create", "team"]);
    let (_, ada, mut ada_inbox) = up.peer("ada", 0).await;
    let (_, bob, mut bob_inbox) = up.peer("bob", 2).await;
    ada.send(bob.pubkey().as_str(), Priority::Now, "over the bus").await.expect("accepted");
    assert_eq!(message(&mut bob_inbox).await, "over the bus");
    bob.send(ada.member_pubkey().as_str(), Priority::Now, "and back").await.expect("accepted");
    assert_eq!(message(&mut ada_inbox).await, "and back");

    // Invites of one second are alike at first, and told apart by trying again.
    for _ in 0..3 {
        let invite = up.run(&["invite", "create", "team"]);
        let log = std::fs::read_to_string(up.place.path().join("cluster/postgres.log"));
        let token = text(&invite["token"]);
        assert!(!log.expect("a log").contains(&token[..32]), "a secret in the database's log");
    }

    let (code, sentence) = refused(&up.place, &["up"]);
    assert_eq!(code, "cluster_running");
    assert!(sentence.contains("--dir") && sentence.contains("cluster down"), "{sentence}");

    let pids = up.pids();
    assert_eq!(pids.len(), 5);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    up.child.signal(Signal::INT);
    assert!(up.child.wait().success());
    let left: Vec<&i32> = pids.iter().filter(|pid| is_alive(**pid)).collect();
    assert!(left.is_empty(), "{left:?} of {pids:?}");
    for index in 0..3 {
        let log = std::fs::read_to_string(text(&up.node(index)["log"])).expect("a log");
        assert!(log.contains("draining") && log.contains("stopped"), "in order: {log}");
    }
}

#[tokio::test]
async fn after_a_crash_of_everything_the_next_start_has_all_that_was_acked() {
    let mut up = Up::start();
    up.run(&["mesh", "create", "team"]);
    let (_, ada, _ada_inbox) = up.peer("ada", 0).await;
    let (bob_options, bob, bob_inbox) = up.peer("bob", 1).await;
    let bob_key = bob.member_pubkey();
    bob.close().await;
    drop(bob_inbox);
    // His key as a member's: a session of his that is in grace has its own.
    ada.send(bob_key.as_str(), Priority::Next, "before the crash").await.expect("accepted");
    drop(ada);

    up.child.signal(Signal::KILL);
    up.child.wait();
    let pids = up.pids();
    // Node 3 and its servers run on, as a crash of the parent leaves them; the
    // rest is as after a power cut.
    for pid in [pids[0], pids[1], pids[3]] {
        kill(pid, Signal::KILL);
    }
    let Up { place, .. } = &up;
    let record = place.path().join("cluster/running.json");
    assert!(record.exists() && is_alive(pids[2]) && is_alive(pids[4]));

    let mut child = Printing::start(command(place, &["up", "--port", "0"]));
    up.said = child.next_within(START);
    up.child = child;
    assert_eq!(up.said["status"], "up", "{}", up.said);
    assert!(!is_alive(pids[2]) && !is_alive(pids[4]), "what the crash left is gone");
    let (_bob, mut bob_inbox) = Client::connect(&up.url(2), bob_options).await.expect("connected");
    assert_eq!(message(&mut bob_inbox).await, "before the crash");
    assert_eq!(up.run(&["audit", "verify", "team"])["valid"], true);
}

#[tokio::test]
async fn what_dies_is_started_again_and_down_works_from_elsewhere() {
    let mut up = Up::start();
    let node = up.pids()[1];
    let port = up.node(1)["port"].as_u64().expect("a port");
    kill(node, Signal::KILL);
    let url = format!("http://127.0.0.1:{port}/health/ready").parse().expect("a URL");
    until("the node was away and is back", async || {
        let answer = client::http::call(Method::GET, &url, &[], None).await;
        !is_alive(node) && matches!(answer, Ok((status, _)) if status.is_success())
    })
    .await;

    let down = command(&up.place, &["down"]).output().expect("it starts");
    let down = Answer::of(&down, &["cluster", "down"]);
    assert_eq!(down.object()["wasUp"], true, "{down:?}");
    assert!(up.child.wait().success());
    ask_until("nothing is left", || up.pids().iter().all(|pid| !is_alive(*pid)));
    let down = command(&up.place, &["down"]).output().expect("it starts");
    assert_eq!(Answer::of(&down, &["cluster", "down"]).object()["wasUp"], false);
}

/// The user whom the servers run as under root, as the program finds it.
fn server_user() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").expect("users");
    let line = |name: &str| users.lines().find(|line| line.starts_with(&format!("{name}:")));
    let line = line("postgres").or_else(|| line("nobody")).expect("a user");
    let field = |at: usize| line.split(':').nth(at).and_then(|id| id.parse().ok()).expect("an id");
    (field(2), field(3))
}

#[test]
fn root_writes_nothing_where_the_servers_user_can_plant_links_and_runs_nothing_as_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root runs the servers as another user");
        return;
    }
    let (uid, gid) = server_user();
    let place = open_place();
    let (victims, folder) = (place.path().join("victims"), place.path().join("cluster"));
    for folder in [&victims, &folder, &folder.join("redis"), &folder.join("postgres")] {
        std::fs::create_dir(folder).expect("a folder");
    }
    std::fs::write(folder.join("lock"), "").expect("a file");
    // As a cluster of a release before has them: the user's own.
    for name in ["redis", "postgres"] {
        chown(folder.join(name), Some(uid), Some(gid)).expect("root may");
    }
    let planted = [
        "redis/redis.new",
        "redis/redis.conf",
        "postgres/password",
        "postgres/password.new",
        "postgres/data.new",
    ];
    for name in planted {
        let victim = victims.join(name.replace('/', "-"));
        if name.ends_with("data.new") {
            std::fs::create_dir(&victim).expect("a folder");
            std::fs::write(victim.join("theirs"), "kept").expect("a file");
        } else {
            std::fs::write(&victim, "kept").expect("a file");
        }
        symlink(&victim, folder.join(name)).expect("a link");
        lchown(folder.join(name), Some(uid), Some(gid)).expect("root may");
    }

    let up = Up::start_in(place);
    for name in planted {
        let victim = victims.join(name.replace('/', "-"));
        let metadata = std::fs::metadata(&victim).expect("it is still there");
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{name} was given away");
        let file = if metadata.is_dir() { victim.join("theirs") } else { victim };
        assert_eq!(std::fs::read_to_string(file).expect("a file"), "kept", "{name}");
    }
    let configuration = std::fs::metadata(folder.join("redis.conf")).expect("a file");
    assert_eq!((configuration.uid(), configuration.gid()), (0, gid));
    assert_eq!(configuration.mode() & 0o777, 0o640);
    assert_eq!(std::fs::metadata(folder.join("postgres")).expect("a folder").uid(), 0);
    for pid in up.pids() {
        let process = std::fs::metadata(format!("/proc/{pid}")).expect("it runs");
        assert_eq!(process.uid(), uid, "process {pid}");
    }
}

#[test]
fn misuse_is_answered_with_what_to_do() {
    let place = open_place();
    let path = |name: &str| -> PathBuf { place.path().join(name) };
    let at = |name: &str| path(name).display().to_string();

    let answer = command(&place, &["up", "--nodes", "0"]).output().expect("it starts");
    assert_eq!(answer.status.code(), Some(2));

    std::fs::create_dir(path("photos")).expect("a folder");
    std::fs::write(path("photos/1.jpg"), "").expect("a file");
    let (code, sentence) = refused(&place, &["up", "--dir", &at("photos")]);
    assert_eq!(code, "bad_folder");
    assert!(sentence.contains("not empty"), "{sentence}");
    let (code, _) = refused(&place, &["up", "--dir", &at("photos/1.jpg")]);
    assert_eq!(code, "bad_folder");
    assert_eq!(refused(&place, &["down", "--dir", &at("photos")]).0, "no_cluster");

    let mut without = command(&place, &["up"]);
    without.env("PATH", path("nothing"));
    let without = Answer::of(&without.output().expect("it starts"), &["up"]).failure();
    // Postgres is found without PATH where Debian keeps it.
    assert!(["redis_missing", "postgres_missing"].contains(&without.0.as_str()), "{without:?}");
    assert!(without.1.contains("apt-get install"), "{without:?}");

    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let (code, sentence) = refused(&place, &["up", "--port", &port]);
    assert_eq!(code, "port_in_use");
    assert!(sentence.contains(&port) && sentence.contains("--port"), "{sentence}");

    let mut wrong = command(&place, &["up"]);
    wrong.env("LEASE_GRACE_SECONDS", "soon");
    let wrong = Answer::of(&wrong.output().expect("it starts"), &["up"]);
    assert_eq!((wrong.code, wrong.object()["error"]["code"].as_str()), (2, Some("config")));
}

#[test]
fn a_folder_that_the_servers_user_cannot_enter_is_said_to_be_one() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    std::fs::set_permissions(place.path(), Permissions::from_mode(0o700)).expect("ours");
    let (code, sentence) = refused(&place, &["up"]);
    assert_eq!(code, "bad_folder");
    assert!(sentence.contains("another user than root"), "{sentence}");
}
