//! A broker with something of everything, and who may ask for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claudemesh_broker::auth::{Claims, InvitePayload, SecretKey, TokenKey};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::config::{Config, Secret};
use claudemesh_broker::id::{self, MemberId};
use claudemesh_broker::store::{AccountEnrolment, Role};
use serde_json::{Value, json};

use super::text;
use crate::harness::http::{get, request};
use crate::harness::{Node, Raw};

pub(super) const SERVICE: &str = "a-web-application-0123";
pub(super) const ADMIN: &str = "an-admin-token-0123456";

pub(super) struct World {
    node: Arc<Node>,
    /// A bearer token for each scheme of the description.
    tokens: BTreeMap<&'static str, String>,
    /// What a part of a path may be.
    values: BTreeMap<&'static str, String>,
    owner: Raw,
    ada: Raw,
}

impl World {
    pub(super) fn configure(config: &mut Config) {
        config.accounts.service_tokens = vec![Secret::new(SERVICE)];
        config.http.admin_tokens = vec![Secret::new(ADMIN)];
    }

    pub(super) async fn new(node: Node) -> Self {
        let user = json!({ "user_id": "ada", "email": "ada@example.org", "name": "Ada" });
        let made = post(&node, "/cli/token", SERVICE, user).await;
        let account = text(&made["token"]).to_owned();
        let body = json!({ "name": "Spare", "pubkey": Self::fresh_key() });
        let spare = post(&node, "/cli/mesh/create", &account, body).await;
        let mine = post(&node, "/api/my/meshes", &account, json!({ "name": "Mine" })).await;
        let mut owner = Raw::hello(&node, &node.owner).await;
        let hook = owner.ask(json!({ "type": "create_webhook", "name": "ci" })).await;
        let secret = text(&hook["secret"]).to_owned();
        let member = node.member_as("ada", Role::Admin).await;
        let mut ada = Raw::hello(&node, &member).await;
        let ask = json!({ "type": "apikey_create", "label": "ci", "capabilities": ["admin"] });
        let key = ada.ask(ask).await;
        let tokens = BTreeMap::from([
            ("accountToken", account),
            ("serviceToken", SERVICE.to_owned()),
            ("adminToken", ADMIN.to_owned()),
            ("apiKey", text(&key["secret"]).to_owned()),
        ]);
        let values = BTreeMap::from([
            ("slug", text(&spare["slug"]).to_owned()),
            ("mine", text(&mine["id"]).to_owned()),
            ("mesh", node.mesh.to_string()),
            ("id", node.mesh.to_string()),
            ("member", node.owner.id.to_string()),
            ("ada", member.id.to_string()),
            ("secret", secret),
            ("name", "general".to_owned()),
        ]);
        Self { node: Arc::new(node), tokens, values, owner, ada }
    }

    pub(super) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    pub(super) fn token(&self, scheme: &str) -> &str {
        self.tokens.get(scheme).map_or("", String::as_str)
    }

    pub(super) fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("none", String::as_str)
    }

    /// What no log line may have.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let tokens = self.tokens.values().map(String::as_str);
        tokens.chain([self.value("secret")]).collect()
    }

    pub(super) fn fresh_key() -> String {
        SecretKey::generate().public_key().to_string()
    }

    /// A key that a root key is sealed for.
    pub(super) fn recipient() -> String {
        URL_SAFE_NO_PAD.encode([9; 32])
    }

    /// A call that joins by the invite of that code.
    pub(super) async fn join_of(&self, node: &Node, code: &str) -> Value {
        let found = get(node, &format!("/api/public/invite-code/{code}")).await.json();
        let token = text(&found["token"]);
        let payload = InvitePayload::from_token(token).expect("a token");
        json!({ "invite_token": token, "invite_payload": payload,
            "peer_pubkey": Self::fresh_key(), "display_name": "joiner" })
    }

    /// A call that fetches an account's meshes.
    pub(super) async fn sync(&self) -> Value {
        let now = Timestamp::now();
        let secret = self.node.store.accounts.signing_key(now).await.expect("made");
        let claims = Claims {
            sub: "ada".to_owned(),
            email: String::new(),
            name: None,
            kind: None,
            meshes: Some(Vec::new()),
            action: Some("sync".to_owned()),
            jti: id::random(),
            iat: now.as_ms() / 1000,
            exp: now.as_ms() / 1000 + 60,
        };
        json!({ "sync_token": TokenKey::new(secret).sign(&claims),
            "peer_pubkey": Self::fresh_key(), "display_name": "ada" })
    }

    /// A mesh that the account is in and does not own.
    pub(super) async fn visited(&self, node: &Node) -> String {
        let (mesh, _) = node.another_mesh("visited").await;
        let enrolment = AccountEnrolment {
            mesh: mesh.clone(),
            member: MemberId::generate(),
            account: "ada".into(),
            key: SecretKey::generate().public_key(),
            display_name: "ada".to_owned(),
            role: Role::Member,
        };
        node.store.profiles.enrol(Timestamp::now(), &enrolment).await.expect("enrolled");
        mesh.to_string()
    }

    /// Something of what a mesh shares.
    pub(super) async fn fill(&mut self) {
        self.ada.ask(json!({ "type": "topic_create", "name": "general" })).await;
        self.owner.ask(json!({ "type": "topic_join", "topic": "general" })).await;
        // "green @ada"
        self.owner.sent("#general", "next", "Z3JlZW4gQGFkYQ==").await;
        let ask = json!({ "type": "set_state", "key": "k", "value": { "deep": [1] } });
        self.ada.ask(ask).await;
        let task = self.ada.ask(json!({ "type": "create_task", "title": "ship" })).await;
        self.owner.ask(json!({ "type": "create_task", "title": "rest", "tags": ["x"] })).await;
        self.owner.ask(json!({ "type": "claim_task", "taskId": task["id"] })).await;
        self.ada.ask(json!({ "type": "remember", "content": "green", "tags": ["ci"] })).await;
    }
}

async fn post(node: &Node, path: &str, token: &str, body: Value) -> Value {
    let bearer = format!("Bearer {token}");
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let reply = request(node, "POST", path, &headers, &body.to_string()).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}
