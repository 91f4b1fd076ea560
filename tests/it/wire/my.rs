//! `/api/my` and the tokens that an account makes for itself, from outside.

use claudemesh_broker::auth::{InvitePayload, SecretKey};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::config::{AccountsMode, Secret};
use claudemesh_broker::id::{MemberId, MeshId};
use claudemesh_broker::store::{AccountEnrolment, Role};
use serde_json::{Value, json};

use super::accounts::{SERVICE, call, done, token_of};
use crate::harness::http::{self, Reply};
use crate::harness::raw::hello_frame;
use crate::harness::{Cluster, Member, Node, Raw, Setup};

const ADMIN: &str = "an-admin-token-0123456";

async fn node() -> Node {
    Node::start_with(|config| {
        config.accounts.service_tokens = vec![Secret::new(SERVICE)];
        config.http.admin_tokens = vec![Secret::new(ADMIN)];
    })
    .await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// A mesh that the account makes as a page does it.
async fn mesh_of(node: &Node, token: &str, name: &str) -> String {
    let made = done(node, "POST", "/api/my/meshes", token, json!({ "name": name })).await;
    text(&made["id"]).to_owned()
}

/// A machine of the account in all its meshes that the token names.
async fn synced(node: &Node, sync_token: &str, name: &str) -> (Value, SecretKey) {
    let key = SecretKey::generate();
    let body = json!({
        "sync_token": sync_token, "peer_pubkey": key.public_key(), "display_name": name,
    });
    (done(node, "POST", "/cli-sync", "", body).await, key)
}

/// The mesh, as the member that was synced into it sees it at that node.
fn seen_from(node: &Node, synced: &Value, key: &SecretKey, name: &str) -> (Node, Member) {
    let id = MemberId::from(text(&synced["member_id"]));
    let member = Member { id, key: key.clone(), name: name.to_owned() };
    let mesh = MeshId::from(text(&synced["mesh_id"]));
    let there = (node.config.clone(), node.store.clone());
    (Node::elsewhere(node.address, there.0, there.1, mesh, member.clone()), member)
}

async fn sync_token(node: &Node, token: &str, ids: &[&str]) -> Reply {
    let meshes: Vec<Value> =
        ids.iter().map(|id| json!({ "id": id, "slug": "x", "role": "admin" })).collect();
    let body = json!({ "meshes": meshes, "action": "sync" });
    call(node, "POST", "/api/cli-sync-token", token, body).await
}

#[tokio::test]
async fn a_mesh_that_a_page_makes_has_its_owners_machine_in_it_after_a_sync() {
    let node = node().await;
    let ada = token_of(&node, "ada").await;
    let body = json!({ "name": "My Team", "visibility": "private", "transport": null });
    let made = done(&node, "POST", "/api/my/meshes", &ada, body).await;
    assert_eq!(made["slug"], "my-team");
    let id = text(&made["id"]);
    for (body, error) in [
        (json!({ "name": "x" }), "name is one line of 2 to 80 characters"),
        (json!({ "name": "ok", "visibility": "public" }), "visibility can only be private here"),
        (json!([]), "the body is JSON {name}"),
    ] {
        let reply = call(&node, "POST", "/api/my/meshes", &ada, body).await;
        assert_eq!((reply.status, reply.json()["error"].clone()), (400, error.into()));
    }
    let shown = done(&node, "GET", &format!("/api/my/meshes/{id}"), &ada, Value::Null).await;
    let fields = |shown: &Value| {
        [&shown["slug"], &shown["role"], &shown["isOwner"], &shown["memberCount"]].map(Clone::clone)
    };
    assert_eq!(fields(&shown), [json!("my-team"), json!("owner"), json!(true), json!(1)]);
    assert_eq!(shown["brokerUrl"], format!("ws://{}/ws", node.address));

    let token = sync_token(&node, &ada, &[id]).await.json();
    let (answer, key) = synced(&node, text(&token["token"]), "laptop").await;
    let (here, member) = seen_from(&node, &answer["meshes"][0], &key, "laptop");
    let mut raw = Raw::hello(&here, &member).await;
    // The account owns the mesh, and so does its machine.
    let banned = raw.ask(json!({ "type": "ban", "target": "nobody" })).await;
    assert_eq!(banned["code"], "not_found", "not forbidden: {banned}");
    let general = raw.ask(json!({ "type": "topic_list" })).await;
    assert_eq!(general["topics"][0]["name"], "general", "{general}");
}

#[tokio::test]
async fn a_sync_token_is_for_the_meshes_that_were_chosen_and_for_own_ones_only() {
    let node = node().await;
    let (ada, bob) = (token_of(&node, "ada").await, token_of(&node, "bob").await);
    let (one, _two) = (mesh_of(&node, &ada, "One").await, mesh_of(&node, &ada, "Two").await);
    let bobs = mesh_of(&node, &bob, "Three").await;
    let refused = sync_token(&node, &ada, &[&bobs]).await;
    assert_eq!(
        (refused.status, refused.json()["error"].clone()),
        (403, "none of these meshes is yours".into())
    );
    let chosen = sync_token(&node, &ada, &[&one, &bobs]).await.json();
    let (answer, _) = synced(&node, text(&chosen["token"]), "laptop").await;
    let ids = |answer: &Value| -> Vec<String> {
        let meshes = answer["meshes"].as_array().expect("a list").iter();
        meshes.map(|mesh| text(&mesh["mesh_id"]).to_owned()).collect()
    };
    assert_eq!(ids(&answer), std::slice::from_ref(&one));
    let all = sync_token(&node, &ada, &[]).await.json();
    assert_eq!(ids(&synced(&node, text(&all["token"]), "desk").await.0).len(), 2);

    // A mesh to make first is made once, whoever asks again.
    let body = json!({
        "meshes": [], "action": "create", "newMesh": { "name": "Fresh", "slug": "Fresh mesh" },
    });
    for _ in 0..2 {
        let token = done(&node, "POST", "/api/cli-sync-token", &ada, body.clone()).await;
        let (answer, _) = synced(&node, text(&token["token"]), "phone").await;
        assert_eq!((ids(&answer).len(), &answer["meshes"][0]["slug"]), (1, &json!("fresh-mesh")));
    }
    let listed = done(&node, "GET", "/api/my/meshes", &ada, Value::Null).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(3));
    let bad = json!({ "meshes": [], "action": "create" });
    assert_eq!(call(&node, "POST", "/api/cli-sync-token", &ada, bad).await.status, 400);
    assert_eq!(sync_token(&node, "", &[]).await.status, 401);
}

#[tokio::test]
async fn lists_of_meshes_and_invites_come_in_parts_and_show_no_secret() {
    let node = node().await;
    let ada = token_of(&node, "ada").await;
    let team = mesh_of(&node, &ada, "Team").await;
    for name in ["Alpha", "Beta"] {
        mesh_of(&node, &ada, name).await;
    }
    let slugs = async |query: &str| {
        let path = format!("/api/my/meshes?{query}");
        let listed = done(&node, "GET", &path, &ada, Value::Null).await;
        let listed = listed.as_array().expect("a list").iter();
        listed.map(|mesh| text(&mesh["slug"]).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(slugs("").await, ["alpha", "beta", "team"]);
    assert_eq!(slugs("q=TEA").await, ["team"]);
    assert_eq!(slugs("page=2&perPage=2").await, ["team"]);
    assert_eq!(slugs("page=9").await, Vec::<String>::new());
    for query in ["page=0", "page=x", "perPage=201", "perPage="] {
        let path = format!("/api/my/meshes?{query}");
        assert_eq!(call(&node, "GET", &path, &ada, Value::Null).await.status, 400, "{query}");
    }

    let path = format!("/api/my/meshes/{team}/invites");
    let body = json!({ "role": "admin", "maxUses": 5, "expiresInDays": 30 });
    let made = done(&node, "POST", &path, &ada, body).await;
    assert_eq!((&made["role"], &made["maxUses"]), (&json!("admin"), &json!(5)));
    let token = text(&made["url"]).rsplit('/').next().expect("a token");
    let payload = InvitePayload::from_token(token).expect("a token");
    assert_eq!((payload.verify(), payload.mesh_id.as_str()), (Ok(()), team.as_str()));
    let plain = done(&node, "POST", &path, &ada, Value::Null).await;
    assert_eq!((&plain["role"], &plain["maxUses"]), (&json!("member"), &json!(1)));
    for body in [
        json!({ "maxUses": 0 }),
        json!({ "maxUses": 1001 }),
        json!({ "expiresInDays": 366 }),
        json!({ "role": "owner" }),
    ] {
        let reply = call(&node, "POST", &path, &ada, body.clone()).await;
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
    }
    let page = async |query: &str| {
        let reply = call(&node, "GET", &format!("/api/my/invites{query}"), &ada, Value::Null).await;
        for made in [&made, &plain] {
            let token = text(&made["url"]).rsplit('/').next().expect("a token");
            assert!(!reply.body.contains(text(&made["code"])), "a code lets somebody in");
            assert!(!reply.body.contains(token), "and so does a token");
        }
        reply.json()
    };
    let all = page("").await;
    assert_eq!((all["invites"].as_array().map(Vec::len), &all["more"]), (Some(2), &json!(false)));
    let first = page("?perPage=1").await;
    assert_eq!(
        (first["invites"].as_array().map(Vec::len), &first["more"]),
        (Some(1), &json!(true))
    );
    let second = page("?perPage=1&page=2").await;
    assert_ne!(first["invites"][0]["id"], second["invites"][0]["id"]);
    let row = &all["invites"][0];
    assert_eq!(
        [&row["meshId"], &row["meshSlug"], &row["state"], &row["isOwn"], &row["usedCount"]],
        [&json!(team), &json!("team"), &json!("open"), &json!(true), &json!(0)]
    );

    let export = call(&node, "GET", "/api/my/export", &ada, Value::Null).await;
    assert!(!export.body.contains(token) && !export.body.contains(text(&made["code"])));
    assert!(!export.body.contains(&ada), "no token of a session");
    let mesh = node.store.meshes.get(&MeshId::from(team.as_str())).await.expect("readable");
    let mesh = mesh.expect("there");
    let secrets = [mesh.root_key, mesh.owner_secret_key];
    assert!(secrets.iter().flatten().all(|secret| !export.body.contains(secret.as_str())));
    let export = export.json();
    let count = |list: &str| export[list].as_array().map(Vec::len);
    assert_eq!(["meshes", "memberships", "invites", "sessions"].map(count), [3, 3, 2, 1].map(Some));
    assert_eq!((&export["account"]["id"], &export["truncated"]), (&json!("ada"), &json!([])));
}

#[tokio::test]
async fn a_foreign_account_reaches_nothing_of_a_mesh_and_learns_nothing_of_it() {
    let node = node().await;
    let (ada, bob) = (token_of(&node, "ada").await, token_of(&node, "bob").await);
    let id = mesh_of(&node, &ada, "Team").await;
    let routes = [("GET", ""), ("POST", "/invites"), ("POST", "/archive"), ("POST", "/leave")];
    for (method, route) in routes {
        let at = |id: &str| format!("/api/my/meshes/{id}{route}");
        let foreign = call(&node, method, &at(&id), &bob, Value::Null).await;
        let missing = call(&node, method, &at("none"), &bob, Value::Null).await;
        assert_eq!((foreign.status, &foreign.body), (404, &missing.body), "{route}: as if none");
        assert_eq!(call(&node, method, &at(&id), "", Value::Null).await.status, 401, "{route}");
    }
    assert_eq!(
        done(&node, "GET", "/api/my/invites", &bob, Value::Null).await["invites"],
        json!([])
    );
    let export = done(&node, "GET", "/api/my/export", &bob, Value::Null).await;
    assert_eq!((&export["meshes"], &export["memberships"]), (&json!([]), &json!([])));
    done(&node, "GET", &format!("/api/my/meshes/{id}"), &ada, Value::Null).await;
}

#[tokio::test]
async fn who_is_signed_in_signs_another_terminal_in_and_makes_tokens_for_it() {
    let node = node().await;
    let ada = token_of(&node, "ada").await;
    let path = "/api/auth/cli/device-code/approve-by-user-code";
    for (by, field) in [("user_code", "user_code"), ("session_id", "session_id")] {
        let code = done(&node, "POST", "/cli/device-code", "", json!({})).await;
        let body = json!({ by: code[field] });
        assert_eq!(call(&node, "POST", path, "", body.clone()).await.status, 401);
        let wrong = call(&node, "POST", path, "x.y.z", body.clone()).await;
        assert_eq!(wrong.status, 401, "{wrong:?}");
        assert_eq!(done(&node, "POST", path, &ada, body.clone()).await, json!({ "ok": true }));
        let again = call(&node, "POST", path, &ada, body).await;
        assert_eq!(again.status, 404, "once: {again:?}");
        let poll = format!("/cli/device-code/{}", text(&code["device_code"]));
        let polled = http::get(&node, &poll).await.json();
        assert_eq!((&polled["status"], &polled["user"]["id"]), (&json!("approved"), &json!("ada")));
    }
    for (body, error) in [
        (json!("x"), "Invalid body"),
        (json!({ "user_code": "" }), "session_id or user_code required"),
    ] {
        let reply = call(&node, "POST", path, &ada, body).await;
        assert_eq!((reply.status, reply.json()["error"].clone()), (400, error.into()));
    }

    let made = done(&node, "POST", "/api/auth/cli/token", &ada, Value::Null).await;
    let other = text(&made["token"]);
    let profile = done(&node, "GET", "/api/my/profile", other, Value::Null).await;
    assert_eq!(profile["id"], "ada", "the same account");
    done(&node, "POST", "/cli/session/revoke", "", json!({ "token": ada })).await;
    done(&node, "GET", "/api/my/profile", other, Value::Null).await;
    let gone = call(&node, "POST", "/api/auth/cli/token", &ada, Value::Null).await;
    assert_eq!(gone.status, 401, "a token that was revoked makes none: {gone:?}");
}

/// From an address that is not this machine's.
async fn from_afar(node: &Node, path: &str, token: &str, body: &Value) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    http::request(node, "POST", path, &headers, &body.to_string()).await
}

#[tokio::test]
async fn an_address_that_guesses_codes_is_kept_out_and_an_account_has_so_many_sessions() {
    let node = Node::start_with(|config| {
        config.accounts.service_tokens = vec![Secret::new(SERVICE)];
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
    })
    .await;
    let ada = token_of(&node, "ada").await;
    let path = "/api/auth/cli/device-code/approve-by-user-code";
    let mut statuses = Vec::new();
    for n in 0..40 {
        let body = json!({ "user_code": format!("AAAA-{n:04}") });
        statuses.push(from_afar(&node, path, &ada, &body).await.status);
    }
    let blocked = statuses.iter().position(|status| *status == 429).expect("kept out");
    assert!(blocked > 1 && statuses[..blocked].iter().all(|status| *status == 404), "{statuses:?}");
    let code = done(&node, "POST", "/cli/device-code", "", json!({})).await;
    let body = json!({ "user_code": code["user_code"] });
    let reply = from_afar(&node, path, &ada, &body).await;
    assert_eq!(reply.status, 429, "right ones too");
    assert!(reply.header("retry-after").is_some());

    let mut made = 1;
    let refused = loop {
        let reply = call(&node, "POST", "/api/auth/cli/token", &ada, Value::Null).await;
        if reply.status != 200 {
            break reply;
        }
        made += 1;
        assert!(made <= 200, "no end");
    };
    assert_eq!((refused.status, made), (409, 200), "{refused:?}");
    assert!(refused.body.contains("200"), "{refused:?}");
}

#[tokio::test]
async fn the_page_for_tokens_gives_one_to_whoever_types_a_key_there() {
    let node = node().await;
    let ada = token_of(&node, "ada").await;
    let mesh = mesh_of(&node, &ada, "Team").await;
    let page = http::get(&node, "/token").await;
    let cookie = page.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("Path=/token; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let word = page.body.split("name=\"word\" value=\"").nth(1).expect("a word");
    let word = word.split('"').next().expect("quoted");
    let post = async |cookie: &str, word: &str, key: &str, kind: &str, site: &str| {
        let form = format!("word={word}&key={key}&account=ada&kind={kind}");
        let headers = [("cookie", cookie), ("sec-fetch-site", site)];
        http::request(&node, "POST", "/token", &headers, &form).await
    };
    for (cookie, word, key, site) in [
        (cookie.as_str(), word, ADMIN, "cross-site"),
        ("", word, ADMIN, "same-origin"),
        (&cookie, "x", ADMIN, "same-origin"),
        (&cookie, word, "no-key", "same-origin"),
    ] {
        let reply = post(cookie, word, key, "login", site).await;
        assert!(reply.status == 403 && !reply.body.contains("eyJ"), "{reply:?}");
    }
    let token = async |kind: &str| {
        let reply = post(&cookie, word, ADMIN, kind, "same-origin").await;
        assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")));
        let token = reply.body.split("<pre class=\"code\">").nth(1).expect("a token");
        token.split('<').next().expect("an end").to_owned()
    };
    let login = token("login").await;
    assert_eq!(done(&node, "GET", "/api/my/profile", &login, Value::Null).await["id"], "ada");
    let (answer, _) = synced(&node, &token("sync").await, "laptop").await;
    assert_eq!(answer["meshes"][0]["mesh_id"], mesh.as_str());
    // The word of one page is none of another's.
    let code = done(&node, "POST", "/cli/device-code", "", json!({})).await;
    let form = format!("session={}&word={word}&key={ADMIN}&account=ada", text(&code["session_id"]));
    let reply = http::request(&node, "POST", "/cli-auth", &[("cookie", &cookie)], &form).await;
    assert_eq!(reply.status, 403, "{reply:?}");
}

#[tokio::test]
async fn what_is_not_done_here_is_refused_with_a_sentence_and_a_code() {
    let node = Node::start_with(|config| config.accounts.mode = AccountsMode::Off).await;
    for (method, path, code) in [
        ("POST", "/api/my/meshes/x/invites/email", "mail_not_supported"),
        ("GET", "/api/my/invites/incoming", "mail_not_supported"),
        ("DELETE", "/api/my/invites/incoming/x", "mail_not_supported"),
        ("GET", "/api/my/meshes/x/stream", "stream_not_supported"),
        ("POST", "/api/auth/cli/device-code/x/approve", "approval_not_supported"),
        ("POST", "/upload", "files_not_supported"),
        ("GET", "/download/x", "files_not_supported"),
        ("POST", "/tg/token", "telegram_not_supported"),
    ] {
        let reply = call(&node, method, path, "", Value::Null).await;
        assert_eq!((reply.status, &reply.json()["code"]), (501, &json!(code)), "{method} {path}");
    }
    for (method, path) in [
        ("POST", "/api/my/meshes"),
        ("GET", "/api/my/meshes/x"),
        ("POST", "/api/my/meshes/x/invites"),
        ("POST", "/api/my/meshes/x/archive"),
        ("POST", "/api/my/meshes/x/leave"),
        ("GET", "/api/my/invites"),
        ("GET", "/api/my/export"),
        ("POST", "/api/cli-sync-token"),
        ("POST", "/api/auth/cli/token"),
        ("POST", "/api/auth/cli/device-code/approve-by-user-code"),
        ("GET", "/token"),
    ] {
        let reply = call(&node, method, path, "", Value::Null).await;
        assert!(reply.status == 404 && reply.body.contains("ACCOUNTS=on"), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn permissions_are_handed_on_by_whoever_has_them_and_the_owners_are_his_own() {
    let node = node().await;
    let ada = token_of(&node, "ada").await;
    let id = mesh_of(&node, &ada, "Team").await;
    let token = token_of(&node, "bob").await;
    let token_of_ada = sync_token(&node, &ada, &[&id]).await.json();
    let (answer, _) = synced(&node, text(&token_of_ada["token"]), "laptop").await;
    // In the node's own mesh, bob's account is an admin and owns nothing.
    let bob = admin_of(&node, "bob").await;
    let path = "/cli/mesh/test/permissions";
    let set = async |member: &str, permissions: Value| {
        let body = json!({ "member_id": member, "permissions": permissions });
        call(&node, "POST", path, &token, body).await
    };
    let owner = node.owner.id.to_string();
    let reply = set(&owner, json!({ "canSend": false })).await;
    assert_eq!(reply.status, 403, "the owner's: {reply:?}");
    let reply = set(bob.as_str(), json!({ "canDeleteMesh": true })).await;
    assert_eq!(reply.status, 403, "more than he has: {reply:?}");
    let reply = set(bob.as_str(), json!({ "canSend": false })).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(answer["meshes"][0]["role"], "admin");
}

/// An admin of the node's own mesh that is the account's.
async fn admin_of(node: &Node, account: &str) -> MemberId {
    let enrolment = AccountEnrolment {
        mesh: node.mesh.clone(),
        member: MemberId::generate(),
        account: account.into(),
        key: SecretKey::generate().public_key(),
        display_name: account.to_owned(),
        role: Role::Admin,
    };
    node.store.profiles.enrol(Timestamp::now(), &enrolment).await.expect("enrolled");
    enrolment.member
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_account_does_on_one_node_holds_on_all() {
    let setup = Setup::new(3).set("ACCOUNTS", "on").set("SERVICE_TOKEN", SERVICE);
    let cluster: Cluster = setup.start().await;
    let [first, second, third] = cluster.nodes.as_slice() else { panic!("three nodes") };
    let (ada, bob) = (token_of(first, "ada").await, token_of(first, "bob").await);
    let id = mesh_of(first, &ada, "Team").await;
    // Made on one node, invited to on another, seen on the third.
    let invites = format!("/api/my/meshes/{id}/invites");
    let made = done(second, "POST", &invites, &ada, json!({ "maxUses": 2 })).await;
    let listed = done(third, "GET", "/api/my/invites", &ada, Value::Null).await;
    assert_eq!(listed["invites"][0]["id"], made["id"]);
    let token = sync_token(third, &ada, &[&id]).await.json();
    let (answer, key) = synced(first, text(&token["token"]), "laptop").await;
    let (here, laptop) = seen_from(second, &answer["meshes"][0], &key, "laptop");
    let mut owner = Raw::hello(&here, &laptop).await;
    let reused = json!({
        "sync_token": token["token"], "peer_pubkey": key.public_key(), "display_name": "x",
    });
    let again = call(second, "POST", "/cli-sync", "", reused).await;
    assert_eq!(again.json()["error"], "sync token invalid: token already used");

    // Bob joins, his account is told of it, and he leaves: his socket ends on another node.
    let guest = SecretKey::generate();
    let token = text(&made["url"]).rsplit('/').next().expect("a token");
    let join = json!({
        "invite_token": token, "invite_payload": InvitePayload::from_token(token).expect("one"),
        "peer_pubkey": guest.public_key(), "display_name": "bob",
    });
    let joined = done(third, "POST", "/join", "", join.clone()).await;
    cluster.sql("update mesh.member set user_id = 'bob' where display_name = 'bob'").await;
    let bob_member =
        Member { id: text(&joined["memberId"]).into(), key: guest, name: "bob".to_owned() };
    let (there, _) = seen_from(third, &answer["meshes"][0], &key, "laptop");
    let mut socket = Raw::hello(&there, &bob_member).await;
    let at = |route: &str| format!("/api/my/meshes/{id}{route}");
    for route in ["/archive", "/invites"] {
        let reply = call(second, "POST", &at(route), &bob, Value::Null).await;
        assert_eq!(reply.status, 403, "a member, and no owner: {reply:?}");
    }
    let stays = call(second, "POST", &at("/leave"), &ada, Value::Null).await;
    assert_eq!(stays.status, 409, "{stays:?}");
    let left = done(first, "POST", &at("/leave"), &bob, Value::Null).await;
    assert_eq!(left["memberIds"], json!([bob_member.id]));
    assert_eq!(socket.closed().await.0, 4002);
    owner.event("peer_left").await;
    let hello = hello_frame(&there.mesh, &bob_member);
    assert_eq!(Raw::refused(&there, hello).await.0["code"], "revoked");
    for node in [first, second, third] {
        let gone = call(node, "GET", &at(""), &bob, Value::Null).await;
        assert_eq!(gone.status, 404, "{gone:?}");
    }
    let again = call(third, "POST", "/join", "", join).await;
    assert_eq!(again.json()["error"], "invite_banned", "by a newer invite only");
    assert_eq!(there.audit_count("member_left").await, 1);
    assert!(there.audit_is_valid().await);

    done(third, "POST", &at("/archive"), &ada, Value::Null).await;
    for node in [first, second, third] {
        assert_eq!(call(node, "GET", &at(""), &ada, Value::Null).await.status, 404);
    }
    // A session that is revoked on one node is refused by every route on all.
    done(second, "POST", "/cli/session/revoke", "", json!({ "token": ada })).await;
    for node in [first, second, third] {
        for (method, path) in [
            ("GET", "/api/my/invites"),
            ("GET", "/api/my/export"),
            ("POST", "/api/my/meshes"),
            ("POST", "/api/auth/cli/token"),
            ("POST", "/api/cli-sync-token"),
            ("POST", "/api/auth/cli/device-code/approve-by-user-code"),
            ("GET", at("").as_str()),
            ("POST", at("/invites").as_str()),
            ("POST", at("/archive").as_str()),
            ("POST", at("/leave").as_str()),
        ] {
            let reply = call(node, method, path, &ada, json!({ "name": "x" })).await;
            assert_eq!(reply.status, 401, "{method} {path}: {reply:?}");
        }
    }
}
