//! `deploy/compose/Caddyfile` before three nodes.

use std::path::Path;
use std::process::{Command, Stdio};

use claudemesh_broker::client::{self, Client, ClientOptions, Inbound};
use claudemesh_broker::protocol::Priority;
use http::Method;

use super::text_of;
use crate::harness::child::ChildProcess;
use crate::harness::ports::free_port;
use crate::harness::{Cluster, PATIENCE, Setup, http as plain, until};

/// The first release that knows everything in the file.
const NEEDED: (u32, u32) = (2, 7);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Which release is installed, if any.
fn installed() -> Option<(u32, u32)> {
    let said = Command::new("caddy").arg("version").output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    let mut numbers =
        text.trim().trim_start_matches('v').split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// A load balancer; it ends with this.
struct Caddy {
    _child: ChildProcess,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Caddy {
    /// By the file as it stands, but for addresses; and for what the installed
    /// release does not know.
    fn start(cluster: &Cluster, version: (u32, u32)) -> Self {
        let mut text = text_of("deploy/compose/Caddyfile");
        if version < NEEDED {
            eprintln!("this Caddy is older than {NEEDED:?}: not run with stream_close_delay");
            let lines = text.lines().filter(|line| !line.contains("stream_close_delay"));
            text = lines.collect::<Vec<_>>().join("\n") + "\n";
        }
        let port = free_port();
        for (number, node) in (1..).zip(&cluster.nodes) {
            text = text.replace(&format!("node-{number}:7900"), &node.address.to_string());
        }
        let text = text.replace("\n:7900 {", &format!("\nhttp://127.0.0.1:{port} {{"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("Caddyfile");
        // Its own port for commands is the same for all that run here.
        std::fs::write(&file, format!("{{\n\tadmin off\n}}\n{text}")).expect("a file");
        let mut command = command(folder.path(), &["run", "--adapter", "caddyfile", "--config"]);
        Self { _child: ChildProcess::start(command.arg(&file)), port, _folder: folder }
    }

    async fn status(&self, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let url = format!("http://127.0.0.1:{}{path}", self.port).parse().expect("a URL");
        let answer = client::http::call(Method::GET, &url, headers, None).await;
        answer.ok().map(|(status, _)| status.as_u16())
    }
}

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("caddy");
    command.args(args).env("HOME", home).env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[tokio::test]
async fn the_balancer_lets_peers_through_and_publishes_nothing_from_inside() {
    let Some(version) = installed() else {
        eprintln!("not run: caddy is not installed");
        return;
    };
    let cluster = Setup::new(3).set("ADMIN_TOKEN", TOKEN).start().await;
    let caddy = Caddy::start(&cluster, version);
    until("the balancer has found the nodes", async || {
        caddy.status("/health", &[]).await == Some(200)
    })
    .await;

    let bearer = format!("Bearer {TOKEN}");
    let with_token = [("authorization", bearer.as_str())];
    for path in ["/metrics", "/dashboard", "/dashboard/app.js", "/admin/v1/nodes"] {
        let reply = plain::request(&cluster.nodes[0], "GET", path, &with_token, "").await;
        assert_eq!(reply.status, 200, "{path} is there to be hidden");
        for written in
            [path.to_owned(), format!("{path}/"), path.to_uppercase(), format!("/{path}")]
        {
            let status = caddy.status(&written, &with_token).await.expect("an answer");
            assert!(status >= 400, "{written} is published: {status}");
        }
        assert_eq!(caddy.status(path, &with_token).await, Some(404), "{path}");
    }
    assert_eq!(caddy.status("/%6detrics", &[]).await, Some(404));

    let url = format!("ws://127.0.0.1:{}/ws", caddy.port);
    let mut peers = Vec::new();
    for name in ["ada", "bob"] {
        let member = cluster.nodes[0].member(name).await;
        let options = ClientOptions::session(member.identity(&cluster.nodes[0].mesh));
        peers.push(Client::connect(&url, options).await.expect("through the balancer"));
    }
    let (bob, mut inbox) = peers.pop().expect("bob");
    let (ada, _inbox) = peers.pop().expect("ada");
    ada.send(bob.pubkey().as_str(), Priority::Now, "by way of Caddy").await.expect("accepted");
    let heard = async {
        loop {
            let inbound = inbox.recv().await.expect("connected");
            if let Inbound::Message { .. } = inbound {
                return inbound.text().expect("a text").to_owned();
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, heard).await.expect("in time");
    assert_eq!(heard, "by way of Caddy");
}

#[test]
fn a_caddy_that_is_new_enough_takes_the_file_as_it_stands() {
    match installed() {
        Some(version) if version >= NEEDED => {
            let home = tempfile::tempdir().expect("a folder");
            let file = super::root().join("deploy/compose/Caddyfile");
            let args = ["validate", "--adapter", "caddyfile", "--config"];
            assert!(command(home.path(), &args).arg(file).status().expect("caddy").success());
        }
        other => eprintln!("not run: Caddy {NEEDED:?} or newer is needed, here is {other:?}"),
    }
}
