//! What a peer was shown of the audit chain, over a database that somebody changes between
//! two of its connections.

use std::path::PathBuf;

use serde_json::json;
use sqlx::AssertSqlSafe;

use super::anchors::{behind_its_back, make_key};
use super::*;
use crate::harness::ports::free_port;
use crate::harness::postgres::{PrivatePostgres, connection};
use crate::harness::program::ask_until;
use crate::harness::until;

/// A broker's environment, and a user who has joined a mesh there.
struct Scene {
    place: Place,
    env: Vec<(&'static str, String)>,
    postgres: Option<String>,
}

impl Scene {
    fn new(postgres: Option<String>) -> Self {
        let mut env = vec![
            ("BROKER_PORT", free_port().to_string()),
            ("AUDIT_HEAD_SECONDS", "0.1".to_owned()),
        ];
        env.extend(postgres.clone().map(|url| ("DATABASE_URL", url)));
        Self { place: Place::new(), env, postgres }
    }

    fn serve(&self, key: &str) -> Serving {
        let mut env: Vec<(&str, &str)> = self.env.iter().map(|(n, v)| (*n, v.as_str())).collect();
        env.push(("AUDIT_KEY", key));
        Serving::start_with(&self.place, &env)
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.place.command(&[args, &["--json"]].concat());
        command.envs(self.env.iter().map(|(name, value)| (*name, value.as_str())));
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        Answer::of(&self.command(args).output().expect("it starts"), args)
    }

    fn types(&self, args: &[&str]) -> Value {
        let answer = self.run(args);
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.object()
    }

    /// What is wrong with what the broker shows; null if nothing is.
    fn doubt(&self) -> Value {
        self.run(&["peer", "audit"]).object()["error"]["code"].clone()
    }

    fn doubt_comes(&self, code: &str) {
        ask_until(code, || self.doubt() == code);
    }

    fn grow(&self, key: &str) {
        self.types(&["peer", "state", "set", key, "1"]);
    }

    async fn tamper(&self, statement: &str) {
        match &self.postgres {
            None => behind_its_back(&self.place, &[statement]).await,
            Some(url) => {
                let statement = statement.replace("audit_log", "mesh.audit_log");
                let statement = statement.replace("audit_head ", "mesh.broker_audit_head ");
                let mut database = connection(url).await;
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut database).await.expect("done");
            }
        }
    }

    /// Where it is kept.
    fn file(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.place.path().join("peers")).expect("a folder");
        let paths = entries.map(|entry| entry.expect("readable").path());
        let is_kept = |path: &PathBuf| path.to_string_lossy().ends_with(".audit.json");
        paths.into_iter().find(is_kept).expect("kept")
    }

    fn pin(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.file()).expect("readable")).expect("JSON")
    }
}

async fn another_chain_is_found(scene: Scene) {
    let (key, public, _) = make_key(&scene.place, "audit.key");
    let (other_key, other_public, _) = make_key(&scene.place, "other.key");
    let broker = scene.serve(&key);
    scene.types(&["mesh", "create", "team"]);
    let invite = scene.types(&["invite", "create", "team"]);
    scene.types(&["peer", "join", &text(&invite["link"]), "--name", "ada"]);
    ask_until("a head is shown", || !scene.types(&["peer", "audit"])["pinned"].is_null());
    assert_eq!(scene.pin()["publicKey"], public);
    scene.grow("k1");
    let first = scene.pin()["rowId"].clone();
    ask_until("a newer head is kept", || {
        assert_eq!(scene.doubt(), Value::Null);
        scene.pin()["rowId"] != first
    });

    // The end is cut off, and the broker itself makes a whole chain of what is left.
    let pin = scene.pin();
    scene.tamper(&format!("delete from audit_log where id >= {}", pin["rowId"])).await;
    assert_eq!(scene.doubt(), "audit_row_gone");
    scene.grow("k2");
    let mut listening = Printing::start(scene.command(&["peer", "listen"]));
    let warning = listening.next_of("warning");
    assert_eq!(warning["code"], "audit_row_gone");
    assert!(text(&warning["message"]).contains("cut off or written anew"), "{warning}");
    drop(listening);
    assert_eq!(scene.pin(), pin, "what was kept is kept");
    // Only who wants it takes what is there now.
    ask_until("what is shown now is accepted", || {
        scene.run(&["peer", "audit", "--accept"]).code == 0
    });
    assert_eq!(scene.doubt(), Value::Null);

    // All of it as before, by another key.
    drop(broker);
    let _broker = scene.serve(&other_key);
    let pin = scene.pin();
    scene.grow("k3");
    scene.doubt_comes("audit_key");
    assert_eq!(scene.pin(), pin);
    scene.types(&["peer", "audit", "--accept"]);
    assert_eq!((scene.doubt(), &scene.pin()["publicKey"]), (Value::Null, &json!(other_public)));

    // What nodes show is believed by its signature, wherever they have it from.
    let pin = scene.pin();
    let forge = "update audit_head set anchor = replace(anchor, '\"hash\":\"', '\"hash\":\"0')";
    until("a forged head is shown", async || {
        scene.tamper(forge).await;
        scene.doubt() == "audit_signature"
    })
    .await;
    let refused = scene.run(&["peer", "audit", "--accept"]).object();
    assert_eq!(refused["error"]["code"], "audit_signature");
    assert_eq!(scene.pin(), pin);
    scene.grow("k4");
    ask_until("the next head is signed", || scene.doubt().is_null());

    // An older head than that of some time ago, and another in its place.
    let pin = scene.pin();
    let mut later = pin.clone();
    later["rowId"] = json!(pin["rowId"].as_i64().expect("a number") + 1000);
    later["seenAt"] = json!("2026-01-01T00:00:00.000Z");
    std::fs::write(scene.file(), later.to_string()).expect("written");
    assert_eq!(scene.doubt(), "audit_went_back");
    assert_eq!(scene.pin(), later);
    let shown = scene.types(&["peer", "audit", "--accept"])["pinned"].clone();
    let mut other = shown.clone();
    other["hash"] = json!("ab".repeat(32));
    std::fs::write(scene.file(), other.to_string()).expect("written");
    assert_eq!(scene.doubt(), "audit_hash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_chain_than_was_shown_before_is_told_and_not_taken_on_sqlite() {
    another_chain_is_found(Scene::new(None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_chain_than_was_shown_before_is_told_and_not_taken_on_postgres() {
    let url = PrivatePostgres::shared().empty_database().await;
    another_chain_is_found(Scene::new(Some(url))).await;
}
