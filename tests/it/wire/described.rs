//! `docs/openapi.json` is held against the broker both ways: what is served is described,
//! what is described is served, and what is answered has the described shape.
//!
//! Of the admin API, the answers are held to it beside its other tests.

mod fuzzed;
mod world;

use std::collections::BTreeSet;

use claudemesh_broker::http::{OPENAPI, served};
use serde_json::{Value, json};

use self::world::{SERVICE, World};
use crate::harness::Node;
use crate::harness::description::{Description, Operation};
use crate::harness::http::{Reply, request};

#[test]
fn every_route_for_programs_is_described_and_every_described_one_is_a_route() {
    let description = Description::read();
    assert_eq!(description.root["openapi"], "3.1.0");
    let described: BTreeSet<Operation> =
        description.operations().into_iter().map(|(operation, _)| operation).collect();
    let served: BTreeSet<Operation> =
        served().into_iter().map(|(method, path)| (method.to_owned(), path)).collect();
    let bare: Vec<_> = served.difference(&described).collect();
    assert!(bare.is_empty(), "served, and not described: {bare:?}");
    let gone: Vec<_> = described.difference(&served).collect();
    assert!(gone.is_empty(), "described, and not served: {gone:?}");
}

#[test]
fn the_description_is_whole_and_names_nothing_that_it_does_not_use() {
    let description = Description::read();
    let components = &description.root["components"];
    for kind in ["schemas", "responses"] {
        for name in components[kind].as_object().expect("components").keys() {
            let reference = format!("\"#/components/{kind}/{name}\"");
            assert!(OPENAPI.contains(&reference), "{name} is used by nothing");
        }
    }
    let mut names = BTreeSet::new();
    for ((method, path), operation) in description.operations() {
        let name = operation["operationId"].as_str().expect("a name");
        assert!(names.insert(name), "{name} is there twice");
        for scheme in operation["security"].as_array().expect("who may").iter() {
            for name in scheme.as_object().expect("a scheme").keys() {
                assert!(components["securitySchemes"][name].is_object(), "{name}");
            }
        }
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let described: BTreeSet<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(described, in_path.collect(), "{method} {path}");
        let takes_body = operation.get("requestBody").is_some();
        assert!(!takes_body || matches!(&*method, "post" | "patch"), "{method} {path}");
    }
}

/// A live broker, each answer of which is held against the description.
pub(super) struct Held<'a> {
    node: &'a Node,
    description: Description,
    done: BTreeSet<Operation>,
}

impl<'a> Held<'a> {
    fn new(node: &'a Node) -> Self {
        Self { node, description: Description::read(), done: BTreeSet::new() }
    }

    /// Calls `template`, `method path`, each `{}` of it filled in, with headers and a body.
    async fn reply(
        &mut self,
        template: &str,
        filled: &[&str],
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Reply {
        let (method, path) = template.split_once(' ').expect("a method and a path");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut filled = filled.iter();
        let parts = path.split('/').map(|part| match part.starts_with('{') {
            true => filled.next().expect("a value for each"),
            false => part,
        });
        let mut address = parts.collect::<Vec<_>>().join("/");
        if !query.is_empty() {
            address = format!("{address}?{query}");
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let all = [&[("content-type", "application/json")], headers].concat();
        let reply = request(self.node, &method.to_uppercase(), &address, &all, &body).await;
        if let Err(why) = self.description.check(method, path, &reply) {
            panic!("{template}: {why}: {reply:?}");
        }
        if reply.status == 200 {
            self.done.insert((method.to_owned(), path.to_owned()));
        }
        reply
    }

    /// As above, with a bearer token, and done.
    async fn done(&mut self, template: &str, filled: &[&str], token: &str, body: Value) -> Value {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let headers = if token.is_empty() { &[][..] } else { &headers };
        let reply = self.reply(template, filled, headers, &body).await;
        assert_eq!(reply.status, 200, "{template}: {reply:?}");
        if reply.header("content-type") == Some("application/json") {
            reply.json()
        } else {
            json!(reply.body)
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// What is answered with 200 once at least, by `one_of_each`.
#[tokio::test]
async fn every_answer_has_the_described_shape() {
    let mut world = World::new(Node::start_with(World::configure).await).await;
    let node = world.node();
    let mut held = Held::new(&node);
    signing_in(&mut held).await;
    meshes_and_invites(&mut held, &world).await;
    what_an_account_has(&mut held, &world).await;
    profiles_and_hooks(&mut held, &world).await;
    api(&mut held, &mut world).await;
    for path in ["get /health", "get /health/ready", "get /metrics", "get /api/public/stats"] {
        held.done(path, &[], "", Value::Null).await;
    }
    // Without any proof, about what is not there.
    for ((method, path), operation) in Description::read().operations() {
        let template = format!("{method} {path}");
        held.reply(&template, &["none"; 3], &[], &Value::Null).await;
        // One has no end; for the other, only other programs make topics that fit.
        let is_left_out = path.ends_with("/stream") || path.ends_with("/claim-key");
        let is_done = operation["responses"]["200"].is_object() && !is_left_out;
        if is_done && !path.starts_with("/admin/") {
            assert!(held.done.contains(&(method, path)), "{template} was not done once");
        }
    }
}

async fn signing_in(held: &mut Held<'_>) {
    let user = json!({ "user_id": "olga", "email": "olga@example.org", "name": "Olga" });
    for (begin, poll) in [
        ("post /cli/device-code", "get /cli/device-code/{code}"),
        ("post /api/auth/cli/device-code/new", "get /api/auth/cli/device-code/{code}"),
    ] {
        let machine = json!({ "hostname": "laptop", "platform": "linux", "arch": "x64" });
        let code = held.done(begin, &[], "", machine).await;
        let device = text(&code["device_code"]);
        held.done(poll, &[device], "", Value::Null).await;
        let approve = "post /cli/device-code/{code}/approve";
        let session = text(&code["session_id"]);
        held.done(approve, &[session], SERVICE, user.clone()).await;
        let polled = held.done(poll, &[device], "", Value::Null).await;
        assert_eq!(polled["status"], "approved");
        held.reply(approve, &[session], &[], &user).await;
    }
    let token = held.done("post /cli/token", &[], SERVICE, user).await;
    let token = text(&token["token"]);
    held.done("get /cli/sessions?user_id=olga", &[], SERVICE, Value::Null).await;
    held.done("get /cli/sessions", &[], token, Value::Null).await;
    held.done("get /api/my/profile", &[], token, Value::Null).await;
    held.done("post /cli/session/revoke", &[], "", json!({ "token": token })).await;
    let bearer = format!("Bearer {token}");
    held.reply("get /api/my/profile", &[], &[("authorization", &bearer)], &Value::Null).await;
}

async fn meshes_and_invites(held: &mut Held<'_>, world: &World) {
    let (token, key) = (world.token("accountToken"), World::fresh_key());
    let body = json!({ "name": "A team", "pubkey": key });
    let made = held.done("post /cli/mesh/create", &[], token, body).await;
    let slug = text(&made["slug"]);
    held.done("get /cli/meshes", &[], token, Value::Null).await;
    held.done("get /api/my/meshes", &[], token, Value::Null).await;
    let grants = json!({ "grants": { key: ["dm"], World::fresh_key(): null } });
    held.done("post /cli/mesh/{slug}/grants", &[slug], token, grants).await;
    let permissions = "/cli/mesh/{slug}/permissions";
    held.done(&format!("get {permissions}"), &[slug], token, Value::Null).await;
    let body = json!({ "member_id": made["member_id"], "permissions": { "canInvite": false } });
    held.done(&format!("post {permissions}"), &[slug], token, body).await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        let invite = "post /cli/mesh/{slug}/invite";
        let made = held.done(invite, &[slug], token, json!({ "role": "member" })).await;
        codes.push(text(&made["code"]).to_owned());
    }
    for code in &codes {
        let found = held.done("get /api/public/invite-code/{code}", &[code], "", Value::Null).await;
        held.done("get /api/public/invite/{token}", &[text(&found["token"])], "", Value::Null)
            .await;
    }
    let recipient = World::recipient();
    let claim = json!({ "recipient_x25519_pubkey": recipient });
    held.done("post /invites/{code}/claim", &[&codes[0]], "", claim.clone()).await;
    held.reply("post /invites/{code}/claim", &[&codes[0]], &[], &claim).await;
    let claim = json!({ "recipient_x25519_pubkey": recipient, "peer_pubkey": World::fresh_key() });
    held.done("post /api/public/invites/{code}/claim", &[&codes[1]], "", claim).await;
    let join = world.join_of(held.node, &codes[2]).await;
    held.done("post /join", &[], "", join.clone()).await;
    held.done("post /join", &[], "", join).await;
    held.done("post /cli-sync", &[], "", world.sync().await).await;
    let renamed = json!({ "slug": "renamed" });
    held.done("patch /api/cli/meshes/{slug}", &[slug], token, renamed).await;
    held.done("delete /cli/mesh/{slug}", &["renamed"], token, Value::Null).await;
}

async fn what_an_account_has(held: &mut Held<'_>, world: &World) {
    let (token, mine) = (world.token("accountToken"), world.value("mine"));
    let made = held.done("post /api/my/meshes", &[], token, json!({ "name": "Ours" })).await;
    let id = text(&made["id"]);
    held.done("get /api/my/meshes?q=our&page=1&perPage=1", &[], token, Value::Null).await;
    held.done("get /api/my/meshes/{id}", &[id], token, Value::Null).await;
    let terms = json!({ "role": "admin", "maxUses": 2, "expiresInDays": 1 });
    held.done("post /api/my/meshes/{id}/invites", &[id], token, terms).await;
    held.done("get /api/my/invites?perPage=1", &[], token, Value::Null).await;
    held.done("get /api/my/export", &[], token, Value::Null).await;
    let chosen = json!({ "meshes": [{ "id": mine }], "action": "sync" });
    held.done("post /api/cli-sync-token", &[], token, chosen).await;
    let other = held.done("post /api/auth/cli/token", &[], token, Value::Null).await;
    let code = held.done("post /cli/device-code", &[], "", json!({})).await;
    let approve = "post /api/auth/cli/device-code/approve-by-user-code";
    let body = json!({ "user_code": code["user_code"] });
    held.done(approve, &[], text(&other["token"]), body).await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let stays = "post /api/my/meshes/{id}/leave";
    assert_eq!(held.reply(stays, &[id], &headers, &Value::Null).await.status, 409);
    held.done(stays, &[&world.visited(held.node).await], token, Value::Null).await;
    held.done("post /api/my/meshes/{id}/archive", &[id], token, Value::Null).await;
}

async fn profiles_and_hooks(held: &mut Held<'_>, world: &World) {
    let (mesh, owner) = (held.node.mesh.to_string(), held.node.owner.id.to_string());
    held.done("get /mesh/{mesh}/members", &[&mesh], "", Value::Null).await;
    let beside = [("x-member-id", owner.as_str())];
    let edit = json!({ "displayName": "Owner", "roleTag": null, "groups": [{ "name": "dev" }] });
    let edited = "patch /mesh/{mesh}/member/{member}";
    assert_eq!(held.reply(edited, &[&mesh, &owner], &beside, &edit).await.status, 200);
    let all = json!({ "displayName": true, "roleTag": true, "groups": true, "messageMode": true });
    let policy = json!({ "selfEditable": all });
    let settings = "patch /mesh/{mesh}/settings";
    assert_eq!(held.reply(settings, &[&mesh], &beside, &policy).await.status, 200);
    let word = json!({ "cwd": "/nowhere", "status": "working" });
    held.done("post /hook/set-status", &[], "", word).await;
    held.done("post /hook/set-status", &[], "", json!({})).await;
    let hook = "post /hook/{mesh}/{secret}";
    held.done(hook, &[&mesh, world.value("secret")], "", json!({ "build": 1 })).await;
}

async fn api(held: &mut Held<'_>, world: &mut World) {
    world.fill().await;
    let key = world.token("apiKey").to_owned();
    for path in [
        "/members",
        "/peers",
        "/notifications",
        "/me/workspace",
        "/me/state",
        "/me/tasks",
        "/me/memory",
        "/me/topics",
        "/me/notifications?include=all",
        "/me/activity",
        "/me/search?q=green",
    ] {
        held.done(&format!("get /api/v1{path}"), &[], &key, Value::Null).await;
    }
    let post = json!({ "topic": "general", "ciphertext": "QGFkYQ==", "nonce": "AAAA" });
    let posted = held.done("post /api/v1/messages", &[], &key, post.clone()).await;
    let mut reply = post;
    reply["replyToId"] = posted["messageId"].clone();
    held.done("post /api/v1/messages", &[], &key, reply).await;
    held.done("get /api/v1/topics", &[], &key, Value::Null).await;
    let named = ["general"];
    held.done("get /api/v1/topics/{name}/messages?limit=2", &named, &key, Value::Null).await;
    held.done("get /api/v1/topics/{name}/key", &named, &key, Value::Null).await;
    held.done("post /api/v1/notifications/read", &[], &key, json!({ "all": true })).await;
    held.done("post /api/v1/notifications/read", &[], &key, json!({ "ids": ["x"] })).await;
    held.done("get /api/v1/topics/{name}/pending-seals", &named, &key, Value::Null).await;
    let seal = json!({ "memberId": world.value("ada"), "encryptedKey": "eA==", "nonce": "eA==" });
    held.done("post /api/v1/topics/{name}/seal", &named, &key, seal).await;
    held.done("patch /api/v1/topics/{name}/read", &named, &key, json!({})).await;
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    let body = json!({ "pubkey": World::fresh_key() });
    let reply = held.reply("post /api/v1/me/peer-pubkey", &[], &headers, &body).await;
    assert_eq!(reply.status, 409);
}
