//! Accounts and the routes of the command line, from outside.

use claudemesh_broker::auth::{Claims, InvitePayload, SecretKey, TokenKey};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::config::{AccountsMode, Secret};
use claudemesh_broker::id::MemberId;
use serde_json::{Value, json};

use crate::harness::http::{self, Reply};
use crate::harness::raw::hello_frame;
use crate::harness::{Cluster, Member, Node, Raw, Setup};

pub(crate) const SERVICE: &str = "a-web-application-0123";
const ADMIN: &str = "an-admin-token-0123456";

async fn node() -> Node {
    Node::start_with(|config| {
        config.accounts.service_tokens = vec![Secret::new(SERVICE)];
        config.http.admin_tokens = vec![Secret::new(ADMIN)];
    })
    .await
}

pub(crate) async fn call(node: &Node, method: &str, path: &str, token: &str, body: Value) -> Reply {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("content-type", "application/json")];
    if !token.is_empty() {
        headers.push(("authorization", bearer.as_str()));
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(node, method, path, &headers, &body).await
}

pub(crate) async fn done(node: &Node, method: &str, path: &str, token: &str, body: Value) -> Value {
    let reply = call(node, method, path, token, body).await;
    assert_eq!(reply.status, 200, "{method} {path}: {reply:?}");
    reply.json()
}

/// A token of an account that a web application has signed in.
pub(crate) async fn token_of(node: &Node, user: &str) -> String {
    let user = json!({ "user_id": user, "email": format!("{user}@example.org"), "name": user });
    let answer = done(node, "POST", "/cli/token", SERVICE, user).await;
    answer["token"].as_str().expect("a token").to_owned()
}

/// A mesh that the account makes, and its first member.
async fn mesh_of(node: &Node, token: &str, name: &str) -> (Value, Member) {
    let key = SecretKey::generate();
    let body = json!({ "name": name, "pubkey": key.public_key() });
    let made = done(node, "POST", "/cli/mesh/create", token, body).await;
    let id = MemberId::from(made["member_id"].as_str().expect("an id"));
    let name = format!("{name}-owner");
    (made, Member { id, key, name })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[tokio::test]
async fn a_terminal_signs_in_by_a_code_that_a_person_approves() {
    let node = node().await;
    let account = token_of(&node, "ada").await;
    let said = json!({ "hostname": "<b>laptop</b>", "platform": "linux", "arch": "x64" });
    let code = done(&node, "POST", "/cli/device-code", "", said).await;
    let (device, session) = (text(&code["device_code"]), text(&code["session_id"]));
    let poll = format!("/cli/device-code/{device}");
    assert_eq!(http::get(&node, &poll).await.json(), json!({ "status": "pending" }));
    let url = text(&code["verification_url"]);
    assert_eq!(url, format!("http://{}/cli-auth", node.address));

    // Opening the page approves nothing; it shows what would be approved.
    let page = http::get(&node, &format!("/cli-auth?session={session}")).await;
    assert!(page.body.contains(text(&code["user_code"])), "{page:?}");
    assert!(page.body.contains("&lt;b&gt;laptop") && !page.body.contains("<b>laptop"));
    assert!(page.body.contains("127.0.0.1"));
    assert_eq!(http::get(&node, &poll).await.json(), json!({ "status": "pending" }));
    let cookie = page.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let word = page.body.split("name=\"word\" value=\"").nth(1).expect("a word");
    let word = word.split('"').next().expect("quoted");
    let post = async |cookie: &str, word: &str, key: &str, site: &str| {
        let form = format!("session={session}&word={word}&key={key}&account=ada");
        let headers = [("cookie", cookie), ("sec-fetch-site", site)];
        http::request(&node, "POST", "/cli-auth", &headers, &form).await.status
    };
    assert_eq!(post(&cookie, word, ADMIN, "cross-site").await, 403, "another page's form");
    assert_eq!(post("", word, ADMIN, "same-origin").await, 403, "without its cookie");
    assert_eq!(post(&cookie, "x", ADMIN, "same-origin").await, 403, "without its word");
    assert_eq!(post(&cookie, word, "no-key", "same-origin").await, 403);
    assert_eq!(http::get(&node, &poll).await.json(), json!({ "status": "pending" }));
    assert_eq!(post(&cookie, word, ADMIN, "same-origin").await, 200);

    let polled = http::get(&node, &poll).await.json();
    assert_eq!(polled["status"], "approved", "{polled}");
    let user = json!({ "id": "ada", "display_name": "ada", "email": "ada@example.org" });
    assert_eq!(polled["user"], user);
    let token = text(&polled["session_token"]);
    assert_eq!(http::get(&node, &poll).await.json(), json!({ "status": "consumed" }));
    let profile = done(&node, "GET", "/api/my/profile", token, Value::Null).await;
    assert_eq!(profile, user);
    // Signing one terminal out leaves the other one in.
    let out = done(&node, "POST", "/cli/session/revoke", "", json!({ "token": token })).await;
    assert_eq!(out, json!({ "ok": true, "found": true }));
    let gone = call(&node, "GET", "/api/my/profile", token, Value::Null).await;
    assert_eq!(
        (gone.status, gone.json()["error"].clone()),
        (401, "invalid_or_revoked_token".into())
    );
    done(&node, "GET", "/api/my/profile", &account, Value::Null).await;
}

#[tokio::test]
async fn a_code_dies_after_ten_wrong_keys() {
    let node = node().await;
    let code = done(&node, "POST", "/cli/device-code", "", json!({})).await;
    let session = text(&code["session_id"]);
    let page = http::get(&node, &format!("/cli-auth?session={session}")).await;
    let cookie = page.header("set-cookie").expect("a cookie").split(';').next().expect("a pair");
    let word = page.body.split("name=\"word\" value=\"").nth(1).expect("a word");
    let word = word.split('"').next().expect("quoted");
    let post = async |key: &str| {
        let form = format!("session={session}&word={word}&key={key}");
        http::request(&node, "POST", "/cli-auth", &[("cookie", cookie)], &form).await.status
    };
    for _ in 0..10 {
        assert_eq!(post("wrong").await, 403);
    }
    assert_eq!(post(ADMIN).await, 404, "it is dead");
    let poll = format!("/cli/device-code/{}", text(&code["device_code"]));
    assert_eq!(http::get(&node, &poll).await.json(), json!({ "status": "expired" }));
}

#[tokio::test]
async fn what_a_web_application_may_do_needs_its_token() {
    let node = node().await;
    let user = json!({ "user_id": "ada", "email": "ada@example.org" });
    for token in ["", "wrong-wrong-wrong-wrong"] {
        let reply = call(&node, "POST", "/cli/token", token, user.clone()).await;
        assert_eq!(reply.status, 401, "{reply:?}");
        let code = "/cli/device-code/x/approve";
        assert_eq!(call(&node, "POST", code, token, user.clone()).await.status, 401);
    }
    let missing = call(&node, "POST", "/cli/token", SERVICE, json!({ "user_id": "ada" })).await;
    assert_eq!(
        (missing.status, missing.json()["error"].clone()),
        (400, "user_id and email required".into())
    );
    let code = done(&node, "POST", "/cli/device-code", "", json!({})).await;
    let approve = format!("/cli/device-code/{}/approve", text(&code["user_code"]));
    done(&node, "POST", &approve, SERVICE, user.clone()).await;
    assert_eq!(call(&node, "POST", &approve, SERVICE, user).await.status, 404, "once");
    let poll = format!("/cli/device-code/{}", text(&code["device_code"]));
    assert_eq!(http::get(&node, &poll).await.json()["status"], "approved");
    let listed = done(&node, "GET", "/cli/sessions?user_id=ada", SERVICE, Value::Null).await;
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(1));
    let off = Node::start().await;
    let reply = call(&off, "POST", "/cli/token", SERVICE, json!({})).await;
    assert_eq!(reply.status, 404);
    assert!(reply.body.contains("SERVICE_TOKEN"), "{reply:?}");
}

#[tokio::test]
async fn without_accounts_the_routes_say_which_setting_turns_them_on() {
    let node = Node::start_with(|config| config.accounts.mode = AccountsMode::Off).await;
    for path in ["/cli/meshes", "/cli-auth", "/i/ABCDEFGH", "/api/public/stats", "/api/my/profile"]
    {
        let reply = http::get(&node, path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.body.contains("ACCOUNTS=on"), "{path}: {reply:?}");
    }
    let members = http::get(&node, &format!("/mesh/{}/members", node.mesh)).await;
    assert_eq!(members.status, 401, "profiles need no account, and a proof");
}

#[tokio::test]
async fn an_account_makes_finds_renames_and_archives_its_meshes() {
    let node = node().await;
    let (ada, bob) = (token_of(&node, "ada").await, token_of(&node, "bob").await);
    let (mesh, owner) = mesh_of(&node, &ada, "My Team").await;
    assert_eq!((&mesh["slug"], &mesh["name"]), (&json!("my-team"), &json!("My Team")));
    assert_eq!(mesh_of(&node, &bob, "My Team").await.0["slug"], "my-team-2");
    let bad = json!({ "name": "x", "pubkey": "zz" });
    let reply = call(&node, "POST", "/cli/mesh/create", &ada, bad).await;
    assert_eq!(
        (reply.status, reply.json()["error"].clone()),
        (400, "pubkey required (64 hex chars)".into())
    );

    let listed = done(&node, "GET", "/cli/meshes", &ada, Value::Null).await;
    let listed = listed["meshes"].as_array().expect("a list");
    assert_eq!(listed.len(), 1, "one was refused before it was made");
    let row = &listed[0];
    assert_eq!(
        (&row["id"], &row["is_owner"], &row["role"]),
        (&mesh["id"], &json!(true), &json!("admin"))
    );
    assert_eq!((&row["member_count"], &row["active_peers"]), (&json!(1), &json!(0)));
    assert_eq!(row["broker_url"], format!("ws://{}/ws", node.address));
    let mine = done(&node, "GET", "/api/my/meshes", &ada, Value::Null).await;
    assert_eq!(mine[0]["role"], "owner");
    // The first member says hello by the key that the command line has made.
    let here = Node::elsewhere(
        node.address,
        node.config.clone(),
        node.store.clone(),
        text(&mesh["id"]).into(),
        owner.clone(),
    );
    let mut raw = Raw::hello(&here, &owner).await;
    assert!(raw.ask(json!({ "type": "list_peers" })).await["peers"].is_array());

    let rename = |slug: &str| json!({ "slug": slug });
    let path = "/api/cli/meshes/my-team";
    for (token, slug, status) in [
        ("", "crew", 401),
        (ada.as_str(), "-x", 400),
        (&bob, "crew", 403),
        (&ada, "my-team-2", 409),
    ] {
        let reply = call(&node, "PATCH", path, token, rename(slug)).await;
        assert_eq!(reply.status, status, "{slug}: {reply:?}");
    }
    assert_eq!(
        call(&node, "PATCH", "/api/cli/meshes/none", &ada, rename("crew")).await.status,
        404
    );
    assert_eq!(done(&node, "PATCH", path, &ada, rename("crew")).await, rename("crew"));
    assert_eq!(call(&node, "DELETE", "/cli/mesh/crew", &bob, Value::Null).await.status, 403);
    assert_eq!(call(&node, "DELETE", "/cli/mesh/my-team", &ada, Value::Null).await.status, 404);
    let gone = done(&node, "DELETE", "/cli/mesh/crew", &ada, json!({ "user_id": "ada" })).await;
    assert_eq!(gone, json!({ "ok": true, "deleted": "crew" }));
    let listed = done(&node, "GET", "/cli/meshes", &ada, Value::Null).await;
    assert_eq!(listed["meshes"], json!([]));
}

#[tokio::test]
async fn an_account_in_a_body_counts_only_where_the_operator_wants_it() {
    let node = node().await;
    let path = "/cli/meshes?user_id=ada";
    assert_eq!(http::get(&node, path).await.status, 401);
    let node = Node::start_with(|config| config.accounts.legacy_auth = true).await;
    assert_eq!(http::get(&node, path).await.json(), json!({ "meshes": [] }));
    let page = [("origin", "https://evil.test")];
    assert_eq!(http::request(&node, "GET", path, &page, "").await.status, 401, "not of a page");
    let proxied = [("x-forwarded-for", "192.0.2.1")];
    assert_eq!(http::request(&node, "GET", path, &proxied, "").await.status, 401);
}

#[tokio::test]
async fn an_owners_invite_lets_a_peer_in_by_its_link_and_by_its_code() {
    let node = node().await;
    let (ada, bob) = (token_of(&node, "ada").await, token_of(&node, "bob").await);
    let (mesh, _) = mesh_of(&node, &ada, "team").await;
    let path = "/cli/mesh/team/invite";
    assert_eq!(call(&node, "POST", path, &bob, json!({})).await.status, 403);
    let invite = done(&node, "POST", path, &ada, json!({ "role": "admin" })).await;
    let (url, code) = (text(&invite["url"]), text(&invite["code"]));
    let token = url.strip_prefix(&format!("http://{}/join/", node.address)).expect("a link");
    let payload = InvitePayload::from_token(token).expect("a token");
    assert_eq!((payload.verify(), payload.role.as_str()), (Ok(()), "admin"));
    assert_eq!(payload.broker_url, format!("ws://{}/ws", node.address));
    let found = http::get(&node, &format!("/api/public/invite-code/{code}")).await.json();
    assert_eq!(found, json!({ "found": true, "token": token }));
    let shown = http::get(&node, &format!("/api/public/invite/{token}")).await.json();
    assert_eq!((&shown["valid"], &shown["meshSlug"]), (&json!(true), &json!("team")));
    for page in [format!("/i/{code}"), format!("/join/{token}")] {
        let page = http::get(&node, &page).await;
        assert!(
            page.status == 200 && page.body.contains(&format!("claudemesh join {url}")),
            "{page:?}"
        );
    }
    let key = SecretKey::generate();
    let join = json!({
        "invite_token": token, "invite_payload": payload, "peer_pubkey": key.public_key(),
        "display_name": "carol",
    });
    let joined = done(&node, "POST", "/join", "", join).await;
    assert_eq!(joined["ok"], true);
    // It is used up: nobody is given its token, which holds the mesh's root key.
    let dead = http::get(&node, &format!("/api/public/invite-code/{code}")).await;
    assert_eq!((dead.status, dead.json()), (404, json!({ "found": false })));
    assert_eq!(http::get(&node, &format!("/i/{code}")).await.status, 404);
    let shown = http::get(&node, &format!("/api/public/invite/{token}")).await.json();
    assert_eq!((&shown["valid"], &shown["reason"]), (&json!(false), &json!("exhausted")));
    let claim = json!({ "recipient_x25519_pubkey": "x".repeat(43) });
    let path = format!("/invites/{code}/claim");
    let gone = call(&node, "POST", &path, "", claim).await;
    assert_eq!((gone.status, gone.json()["error"].clone()), (410, "exhausted".into()));
    assert_eq!(text(&mesh["slug"]), "team");
}

/// What an x25519 key looks like; whose it is, is of no interest here.
const RECIPIENT: &str = "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo";

#[tokio::test]
async fn a_claim_enrols_the_key_that_it_brings_or_the_first_that_says_hello() {
    let node = node().await;
    let ada = token_of(&node, "ada").await;
    let (mesh, owner) = mesh_of(&node, &ada, "team").await;
    let here = Node::elsewhere(
        node.address,
        node.config.clone(),
        node.store.clone(),
        text(&mesh["id"]).into(),
        owner.clone(),
    );
    let code = async || {
        let invite = done(&node, "POST", "/cli/mesh/team/invite", &ada, json!({})).await;
        text(&invite["code"]).to_owned()
    };
    let members = async || here.store.members.active(&here.mesh).await.expect("readable").len();
    let member = |claimed: &Value, key: &SecretKey| Member {
        id: MemberId::from(text(&claimed["member_id"])),
        key: key.clone(),
        name: "guest".to_owned(),
    };
    let key = SecretKey::generate();
    let body = json!({
        "recipient_x25519_pubkey": RECIPIENT, "peer_pubkey": key.public_key(),
        "display_name": "bob",
    });
    let path = format!("/invites/{}/claim", code().await);
    let claimed = done(&node, "POST", &path, "", body).await;
    for field in ["sealed_root_key", "mesh_id", "owner_pubkey", "canonical_v2"] {
        assert!(claimed[field].is_string(), "{field}: {claimed}");
    }
    assert_eq!(members().await, 2);
    Raw::hello(&here, &member(&claimed, &key)).await;

    let path = format!("/api/public/invites/{}/claim", code().await);
    let body = json!({ "recipient_x25519_pubkey": RECIPIENT });
    let claimed = done(&node, "POST", &path, "", body.clone()).await;
    assert_eq!(claimed.as_object().map(serde_json::Map::len), Some(5), "{claimed}");
    assert_eq!(members().await, 2, "unlisted until somebody proves a key");
    let (first, second) = (SecretKey::generate(), SecretKey::generate());
    Raw::hello(&here, &member(&claimed, &first)).await;
    assert_eq!(members().await, 3);
    let late = hello_frame(&here.mesh, &member(&claimed, &second));
    assert_eq!(Raw::refused(&here, late).await.0["code"], "unauthorized", "once");
    assert_eq!(call(&node, "POST", &path, "", body).await.status, 410);
    assert_eq!(
        call(
            &node,
            "POST",
            "/invites/none/claim",
            "",
            json!({ "recipient_x25519_pubkey": RECIPIENT })
        )
        .await
        .status,
        404
    );
    let bad = json!({ "recipient_x25519_pubkey": "short" });
    let path = format!("/invites/{}/claim", code().await);
    assert_eq!(call(&node, "POST", &path, "", bad).await.status, 400);
}

#[tokio::test]
async fn an_account_fetches_its_meshes_once_by_a_token_and_takes_nobodys_key() {
    let node = node().await;
    let ada = token_of(&node, "ada").await;
    let (mesh, _) = mesh_of(&node, &ada, "team").await;
    // A session's token is none to fetch meshes by.
    let key = SecretKey::generate();
    let sync = |token: &str, key: &SecretKey| json!({ "sync_token": token, "peer_pubkey": key.public_key(), "display_name": "ada" });
    let reply = call(&node, "POST", "/cli-sync", "", sync(&ada, &key)).await;
    assert_eq!(reply.json()["error"], "sync token invalid: missing meshes array");
    let reply = call(&node, "POST", "/cli-sync", "", sync("a.b.c", &key)).await;
    assert_eq!(reply.status, 400);
    let missing = call(&node, "POST", "/cli-sync", "", json!({})).await;
    let required = "sync_token, peer_pubkey, display_name required";
    assert_eq!(missing.json(), json!({ "ok": false, "error": required }));

    let now = Timestamp::now();
    let secret = node.store.accounts.signing_key(now).await.expect("made");
    let claims = |jti: &str| Claims {
        sub: "ada".to_owned(),
        email: String::new(),
        name: None,
        kind: None,
        // What a token names is for people: the store knows better.
        meshes: Some(Vec::new()),
        action: Some("sync".to_owned()),
        jti: jti.to_owned(),
        iat: now.as_ms() / 1000,
        exp: now.as_ms() / 1000 + 60,
    };
    let signed = |jti: &str| TokenKey::new(secret.clone()).sign(&claims(jti));
    let synced = done(&node, "POST", "/cli-sync", "", sync(&signed("1"), &key)).await;
    assert_eq!(
        (&synced["account_id"], &synced["meshes"][0]["mesh_id"]),
        (&json!("ada"), &mesh["id"])
    );
    assert_eq!(synced["meshes"][0]["role"], "admin");
    assert_eq!(synced["meshes"].as_array().map(Vec::len), Some(1), "not the node's own mesh");
    let again = call(&node, "POST", "/cli-sync", "", sync(&signed("1"), &key)).await;
    assert_eq!(again.json()["error"], "sync token invalid: token already used");
    let again = done(&node, "POST", "/cli-sync", "", sync(&signed("2"), &key)).await;
    assert_eq!(again["meshes"][0]["member_id"], synced["meshes"][0]["member_id"]);
}

/// Changes a profile as the command line does.
async fn edit(node: &Node, caller: &str, member: &str, body: Value) -> Reply {
    let path = format!("/mesh/{}/member/{member}", node.mesh);
    let headers = [("content-type", "application/json"), ("x-member-id", caller)];
    http::request(node, "PATCH", &path, &headers, &body.to_string()).await
}

#[tokio::test]
async fn a_profile_is_changed_from_beside_the_members_own_socket() {
    let node = node().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let lead =
        json!({ "displayName": "Ada L.", "roleTag": "lead", "groups": [{ "name": "team" }] });
    let members = format!("/mesh/{}/members", node.mesh);
    let refused = edit(&node, ada.id.as_str(), ada.id.as_str(), lead.clone()).await;
    assert_eq!(refused.status, 401, "no socket is open: {refused:?}");
    assert_eq!(http::get(&node, &members).await.status, 401);
    let mut a = Raw::hello(&node, &ada).await;
    assert_eq!(edit(&node, bob.id.as_str(), bob.id.as_str(), lead.clone()).await.status, 401);
    let page = [("x-member-id", ada.id.as_str()), ("origin", "https://evil.test")];
    let path = format!("/mesh/{}/member/{}", node.mesh, ada.id);
    let of_page = http::request(&node, "PATCH", &path, &page, &lead.to_string()).await;
    assert_eq!(of_page.status, 401, "no page may");

    let done = edit(&node, ada.id.as_str(), ada.id.as_str(), lead.clone()).await;
    assert_eq!(done.status, 200, "{done:?}");
    let done = done.json();
    assert_eq!(
        done["changes"],
        json!({
            "displayName": "Ada L.", "roleTag": "lead", "groups": [{ "name": "team" }],
        })
    );
    assert_eq!(
        (&done["member"]["messageMode"], &done["member"]["permission"]),
        (&json!("push"), &json!("member"))
    );
    let told = a.event("profile_updated").await;
    assert_eq!(told["eventData"], done["changes"]);
    let listed = http::get(&node, &members).await.json();
    let row = listed["members"].as_array().expect("a list").iter();
    let row = row.into_iter().find(|row| row["id"] == ada.id.as_str()).expect("listed");
    assert_eq!(
        (&row["displayName"], &row["online"], &row["sessionCount"]),
        (&json!("Ada L."), &json!(true), &json!(1))
    );
    // Names that others see follow on the live connection's node.
    let refusals = [
        (
            bob.id.as_str(),
            json!({ "roleTag": "x" }),
            "not authorized — only admins or self can edit",
        ),
        (ada.id.as_str(), json!({ "permission": "admin" }), "admin-managed fields: permission"),
        (ada.id.as_str(), json!({}), "no fields to update"),
        (ada.id.as_str(), json!({ "messageMode": "loud" }), "messageMode is push, inbox or off"),
    ];
    for (target, body, error) in refusals {
        let reply = edit(&node, ada.id.as_str(), target, body).await;
        assert_eq!((reply.status, reply.json()["error"].clone()), (400, error.into()));
    }
    let _owner = Raw::hello(&node, &node.owner).await;
    let path = format!("/mesh/{}/settings", node.mesh);
    let policy = json!({ "selfEditable": {
        "displayName": true, "roleTag": false, "groups": true, "messageMode": true,
    } });
    let set = async |caller: &MemberId| {
        let headers = [("x-member-id", caller.as_str())];
        http::request(&node, "PATCH", &path, &headers, &policy.to_string()).await.json()
    };
    assert_eq!(set(&ada.id).await["error"], "admin access required");
    assert_eq!(set(&node.owner.id).await, json!({ "ok": true }));
    let managed = edit(&node, ada.id.as_str(), ada.id.as_str(), json!({ "roleTag": "x" })).await;
    assert_eq!(managed.json()["error"], "admin-managed fields: roleTag");
    let by_admin =
        edit(&node, node.owner.id.as_str(), ada.id.as_str(), json!({ "permission": "admin" }))
            .await;
    assert_eq!(by_admin.json()["member"]["permission"], "admin");
}

#[tokio::test]
async fn grants_and_permissions_are_set_by_an_accounts_own_membership() {
    let node = node().await;
    let (ada, bob) = (token_of(&node, "ada").await, token_of(&node, "bob").await);
    let (_, owner) = mesh_of(&node, &ada, "team").await;
    let key = SecretKey::generate().public_key();
    let path = "/cli/mesh/team/grants";
    let body = json!({ "grants": { key.as_str(): ["dm"] } });
    assert_eq!(call(&node, "POST", path, &bob, body.clone()).await.status, 403);
    let merged = done(&node, "POST", path, &ada, body.clone()).await;
    assert_eq!(merged, json!({ "ok": true, "grants": { key.as_str(): ["dm"] } }));
    let body = json!({ "grants": { key.as_str(): null } });
    assert_eq!(done(&node, "POST", path, &ada, body).await["grants"], json!({}));
    let path = "/cli/mesh/team/permissions";
    let said = done(&node, "GET", path, &ada, Value::Null).await;
    assert_eq!(said["members"][0]["permissions"]["canDeleteMesh"], true, "{said}");
    let body = json!({ "member_id": owner.id, "permissions": { "canSend": false } });
    assert_eq!(call(&node, "POST", path, &bob, body.clone()).await.status, 403);
    done(&node, "POST", path, &ada, body).await;
    let said = done(&node, "GET", path, &ada, Value::Null).await;
    assert_eq!(said["members"][0]["permissions"]["canSend"], false);
}

#[tokio::test]
async fn the_numbers_for_everybody_are_a_minute_old_at_most() {
    let node = node().await;
    let first = http::get(&node, "/api/public/stats").await;
    assert_eq!(
        (first.header("x-cache"), &first.json()["meshesCreated"]),
        (Some("MISS"), &json!(1))
    );
    assert_eq!(http::get(&node, "/api/public/stats").await.header("x-cache"), Some("HIT"));
}

#[tokio::test]
async fn what_is_revoked_or_proven_on_one_node_is_so_on_all() {
    let setup = Setup::new(3).set("ACCOUNTS", "on").set("SERVICE_TOKEN", SERVICE);
    let cluster: Cluster = setup.start().await;
    let [first, second, third] = cluster.nodes.as_slice() else { panic!("three nodes") };
    let token = token_of(first, "ada").await;
    for node in [first, second, third] {
        done(node, "GET", "/api/my/profile", &token, Value::Null).await;
    }
    done(second, "POST", "/cli/session/revoke", "", json!({ "token": token })).await;
    for node in [first, second, third] {
        let gone = call(node, "GET", "/api/my/profile", &token, Value::Null).await;
        assert_eq!(gone.status, 401, "{gone:?}");
    }
    // A code of one node is approved on another and redeemed on a third.
    let code = done(first, "POST", "/cli/device-code", "", json!({})).await;
    let approve = format!("/cli/device-code/{}/approve", text(&code["session_id"]));
    let user = json!({ "user_id": "ada", "email": "ada@example.org" });
    done(second, "POST", &approve, SERVICE, user).await;
    let poll = format!("/cli/device-code/{}", text(&code["device_code"]));
    assert_eq!(http::get(third, &poll).await.json()["status"], "approved");
    assert_eq!(http::get(first, &poll).await.json()["status"], "consumed");
    // A member's socket on one node proves it on the others.
    let ada = first.member("ada").await;
    let mut a = Raw::hello(second, &ada).await;
    let body = json!({ "roleTag": "lead" });
    let refused = edit(third, first.owner.id.as_str(), ada.id.as_str(), body.clone()).await;
    assert_eq!(refused.status, 401, "{refused:?}");
    let edited = edit(third, ada.id.as_str(), ada.id.as_str(), body).await;
    assert_eq!(edited.status, 200, "{edited:?}");
    let told = a.event("profile_updated").await;
    assert_eq!(told["eventData"], json!({ "roleTag": "lead" }));
}
