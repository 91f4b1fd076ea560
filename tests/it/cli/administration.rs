//! Meshes, invites, members.

use super::*;

fn is_hex(value: &Value, digits: usize) -> bool {
    value.as_str().is_some_and(|hex| {
        hex.len() == digits && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[test]
fn a_mesh_is_created_listed_shown_and_archived() {
    let place = Place::new();
    assert_eq!(place.json(&["mesh", "list"])["meshes"], serde_json::json!([]));

    let mesh = place.json(&["mesh", "create", "team-1", "--name", "The Team"]);
    assert_eq!((&mesh["slug"], &mesh["name"]), (&"team-1".into(), &"The Team".into()));
    assert!(is_hex(&mesh["meshId"], 32) && is_hex(&mesh["memberId"], 32), "{mesh}");
    assert!(is_hex(&mesh["ownerPubkey"], 64) && is_hex(&mesh["ownerSecretKey"], 128), "{mesh}");
    let secret = SecretKey::from_hex128(&text(&mesh["ownerSecretKey"])).expect("a secret key");
    assert_eq!(secret.public_key().as_str(), mesh["ownerPubkey"]);

    let list = place.json(&["mesh", "list"]);
    assert_eq!(list["meshes"][0]["slug"], "team-1");
    let show = place.json(&["mesh", "show", "team-1"]);
    assert_eq!(show["meshId"], mesh["meshId"]);
    assert_eq!(
        (&show["members"], &show["connected"], &show["queued"]),
        (&1.into(), &0.into(), &0.into())
    );
    for answer in [&list, &show] {
        assert!(!answer.to_string().contains(&text(&mesh["ownerSecretKey"])), "shown once");
    }

    let gone = place.json(&["mesh", "archive", "team-1"]);
    assert_eq!((&gone["archived"], &gone["changed"]), (&true.into(), &true.into()));
    let by_id = place.json(&["mesh", "archive", &text(&mesh["meshId"])]);
    assert_eq!(by_id["changed"], false);
    assert_eq!(place.failure(&["mesh", "show", "team-1"]).0, "mesh_not_found");
}

#[test]
fn people_get_sentences_and_tables() {
    let place = Place::new();
    let empty = place.run(&["mesh", "list"]);
    assert!(empty.out.contains("claudemesh-broker mesh create"), "what to type next: {empty:?}");
    let created = place.run(&["mesh", "create", "team"]);
    assert_eq!((created.code, created.err.as_str()), (0, ""));
    assert!(created.out.contains("claudemesh-broker invite create team"), "{created:?}");
    let list = place.run(&["mesh", "list"]);
    assert_eq!(list.out.lines().count(), 2, "a heading and a row: {list:?}");
    assert!(list.out.starts_with(" slug") && list.out.contains("team"), "{list:?}");
    assert!(!list.out.contains('\u{1b}'), "no colours away from a terminal: {list:?}");
}

#[test]
fn a_bad_or_taken_slug_is_refused_with_a_sentence() {
    let place = Place::new();
    for slug in ["Team", "a b", "ü", "", "team_1", &"x".repeat(65)] {
        let (code, message) = place.failure(&["mesh", "create", slug]);
        assert_eq!(code, "invalid_slug", "{slug:?}: {message}");
        assert!(message.contains("lower-case"), "{message}");
    }
    place.json(&["mesh", "create", "team"]);
    let (_, message) = place.failure(&["mesh", "create", "team"]);
    assert!(message.contains("team"), "{message}");
    assert_eq!(place.json(&["mesh", "list"])["meshes"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_invite_is_signed_and_carries_what_a_peer_needs() {
    let place = Place::new();
    let mesh = place.json(&["mesh", "create", "team"]);
    let args = ["invite", "create", "team", "--role", "admin", "--max-uses", "3"];
    let invite = place.json(&[&args[..], &["--expires-in", "2h"]].concat());

    let token = text(&invite["token"]);
    let link = text(&invite["link"]);
    let secret = link.strip_prefix(&format!("ic://join/{token}."));
    assert_eq!(secret.map(str::len), Some(43), "32 bytes: {invite}");
    let payload = payload_of(&invite);
    assert_eq!(InvitePayload::from_token(&token), Ok(payload.clone()));
    assert_eq!(payload.verify(), Ok(()));
    assert_eq!((payload.v, payload.role.as_str()), (3, "admin"));
    assert_eq!(invite["certifies"], true);
    let certifying = payload.certifying.as_ref().expect("it certifies");
    assert_eq!(certifying.max_uses, 3);
    assert_eq!(invite["id"], *certifying.invite_id);
    assert_eq!(payload.mesh_id, mesh["meshId"]);
    assert_eq!(payload.owner_pubkey, mesh["ownerPubkey"]);
    assert_eq!(payload.broker_url, "ws://localhost:7900/ws");
    let expires_at: Timestamp = serde_json::from_value(invite["expiresAt"].clone()).expect("ISO");
    assert_eq!(expires_at.as_ms() / 1000, payload.expires_at);
    let in_ms = expires_at.ms_since(Timestamp::now());
    assert!((7_100_000..=7_200_000).contains(&in_ms), "two hours, not {in_ms} ms");

    let listed = &place.json(&["invite", "list", "team"])["invites"][0];
    assert_eq!((&listed["maxUses"], &listed["usedCount"]), (&3.into(), &0.into()));
    assert_eq!((&listed["role"], &listed["state"]), (&"admin".into(), &"usable".into()));
    assert_eq!(listed["expiresAt"], invite["expiresAt"]);
}

#[test]
fn an_invite_for_programs_that_know_no_other_is_what_it_was() {
    let place = Place::new();
    place.json(&["mesh", "create", "team"]);
    let invite = place.json(&["invite", "create", "team", "--uncertified"]);
    assert_eq!(invite["link"], format!("ic://join/{}", text(&invite["token"])));
    let payload = payload_of(&invite);
    assert_eq!((payload.v, payload.verify()), (1, Ok(())));
    assert_eq!((&invite["certifies"], payload.certifying), (&false.into(), None));
    let said = place.run(&["invite", "create", "team", "--uncertified"]).out;
    assert!(said.contains("unverified"), "{said}");
}

#[test]
fn the_url_in_an_invite_follows_the_settings() {
    let place = Place::new();
    place.json(&["mesh", "create", "team"]);
    let url_with = |name: &str, value: &str| {
        let args = ["invite", "create", "team", "--json"];
        let output = place.command(&args).env(name, value).output().expect("it starts");
        Answer::of(&output, &args)
    };
    let url = |answer: Answer| text(&answer.object()["payload"]["broker_url"]);
    assert_eq!(url(url_with("BROKER_PORT", "8123")), "ws://localhost:8123/ws");
    let public = "wss://broker.example.org/ws";
    assert_eq!(url(url_with("BROKER_WS_URL", public)), public);
    let nowhere = url_with("BROKER_PORT", "0");
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    assert!(nowhere.err.contains("BROKER_WS_URL"), "{nowhere:?}");
}

#[test]
fn where_the_owners_key_is_not_kept_it_is_given() {
    let place = Place::new();
    let mesh = place.json(&["mesh", "create", "team"]);
    std::fs::remove_file(text(&mesh["ownerKeyFile"])).expect("it was kept there");
    let (code, message) = place.failure(&["invite", "create", "team"]);
    assert_eq!(code, "owner_key_missing");
    assert!(message.contains("--owner-key"), "{message}");
    let secret = text(&mesh["ownerSecretKey"]);
    let invite = place.json(&["invite", "create", "team", "--owner-key", &secret]);
    assert_eq!(payload_of(&invite).verify(), Ok(()));
    let other = SecretKey::generate().to_hex128();
    let wrong = place.failure(&["invite", "create", "team", "--owner-key", &other]);
    assert_eq!(wrong.0, "wrong_owner_key");

    let key_file = place.path().join("key");
    std::fs::write(&key_file, format!("{secret}\n")).expect("written");
    let args = ["invite", "create", "team", "--owner-key", "-", "--json"];
    let key = std::fs::File::open(key_file).expect("readable");
    let output = place.command(&args).stdin(key).output().expect("the program starts");
    assert_eq!(Answer::of(&output, &args).code, 0);
}

#[test]
fn an_invite_is_revoked_by_link_token_or_id_and_once() {
    let place = Place::new();
    place.json(&["mesh", "create", "team"]);
    let (first, second) =
        (place.json(&["invite", "create", "team"]), place.json(&["invite", "create", "team"]));
    assert_ne!(first["token"], second["token"], "however fast one follows the other");
    place.json(&["invite", "revoke", &text(&first["link"])]);
    place.json(&["invite", "revoke", &text(&second["token"])]);
    let again = place.failure(&["invite", "revoke", &text(&second["token"])]);
    assert_eq!(again.0, "invite_not_found");
    place.json(&["invite", "create", "team"]);
    let list = place.json(&["invite", "list", "team"]);
    let state = |invite: &Value| text(&invite["state"]);
    let invites = list["invites"].as_array().expect("a list");
    let newest = invites.iter().find(|invite| state(invite) == "usable").expect("the third");
    place.json(&["invite", "revoke", &text(&newest["id"])]);
    let list = place.json(&["invite", "list", "team"]);
    let invites = list["invites"].as_array().expect("a list");
    assert!(
        invites.len() == 3 && invites.iter().all(|invite| state(invite) == "revoked"),
        "{list}"
    );
}

#[test]
fn odd_invites_are_refused_with_a_sentence() {
    let place = Place::new();
    place.json(&["mesh", "create", "team"]);
    let create = ["invite", "create", "team"];
    let (code, message) = place.failure(&[&create[..], &["--expires-in", "soon"]].concat());
    assert_eq!(code, "invalid_duration");
    assert!(message.contains("7d"), "{message}");
    assert_eq!(place.failure(&["invite", "create", "other"]).0, "mesh_not_found");
    for odd in [["--max-uses", "0"], ["--role", "owner"]] {
        let answer = place.run(&[&create[..], &odd, &["--json"]].concat());
        assert_eq!(answer.code, 2, "{answer:?}");
        assert_eq!(answer.object()["error"]["code"], "usage", "{answer:?}");
    }
}

#[tokio::test]
async fn a_member_is_banned_and_let_in_again_with_audit_rows() {
    let place = Place::new();
    let team = place.team().await;
    let list = place.json(&["member", "list", "team"]);
    assert_eq!(list["members"].as_array().map(Vec::len), Some(2));

    let banned = place.json(&["member", "ban", "team", "ada"]);
    assert_eq!(banned["memberId"], team.ada.as_str());
    assert_eq!(banned["changed"], true);
    assert_eq!(place.json(&["member", "ban", "team", &team.ada_key])["changed"], false);
    let list = place.json(&["member", "list", "team"]);
    assert_eq!(list["members"].as_array().map(Vec::len), Some(1), "{list}");
    let all = place.json(&["member", "list", "team", "--all"]);
    assert_eq!(all["members"].as_array().map(Vec::len), Some(2), "{all}");

    let back = place.json(&["member", "unban", "team", &team.ada_key[..8]]);
    assert_eq!(back["changed"], true);
    assert_eq!(place.json(&["member", "unban", "team", "ada"])["changed"], false);

    let rows = place.json(&["audit", "tail", "team"]);
    let count = |event: &str| {
        let rows = rows["entries"].as_array().expect("a list");
        rows.iter().filter(|row| row["eventType"] == event).count()
    };
    assert_eq!((count("member_banned"), count("member_unbanned")), (1, 1), "{rows}");
    assert_eq!(place.json(&["audit", "verify", "team"])["valid"], true);
}

#[tokio::test]
async fn the_owner_stays_admin_and_cannot_be_banned() {
    let place = Place::new();
    let team = place.team().await;
    let owner = text(&place.json(&["mesh", "show", "team"])["ownerPubkey"]);
    assert_eq!(place.failure(&["member", "ban", "team", &owner]).0, "owner_not_bannable");
    let demote = place.failure(&["member", "role", "team", &owner, "member"]);
    assert_eq!(demote.0, "owner_not_demotable");

    let promoted = place.json(&["member", "role", "team", "ada", "admin"]);
    assert_eq!((&promoted["role"], &promoted["changed"]), (&"admin".into(), &true.into()));
    let again = place.json(&["member", "role", "team", team.ada.as_str(), "admin"]);
    assert_eq!(again["changed"], false);
    let list = place.json(&["member", "list", "team"]);
    let members = list["members"].as_array().expect("a list");
    assert!(members.iter().all(|member| member["role"] == "admin"), "{list}");
}

#[tokio::test]
async fn grants_are_set_emptied_and_restored() {
    let place = Place::new();
    let team = place.team().await;
    let owner = text(&place.json(&["mesh", "show", "team"])["ownerPubkey"]);
    let grant = |what: &str| place.json(&["member", "grant", "team", "ada", &owner, what]);
    let kept = || {
        let list = place.json(&["member", "list", "team"]);
        let members = list["members"].as_array().expect("a list");
        let ada = members.iter().find(|member| member["displayName"] == "ada").expect("listed");
        ada["grants"][&owner].clone()
    };

    assert_eq!(grant("dm,read")["capabilities"], serde_json::json!(["dm", "read"]));
    assert_eq!(kept(), serde_json::json!(["dm", "read"]));
    assert_eq!(grant("none")["capabilities"], serde_json::json!([]));
    assert_eq!(kept(), serde_json::json!([]));
    assert!(grant("default")["capabilities"].is_null());
    assert!(kept().is_null());

    let odd = ["member", "grant", "team", "ada", &owner, "fly"];
    assert_eq!(place.failure(&odd).0, "invalid_capabilities");
    let own = ["member", "grant", "team", "ada", &team.ada_key, "dm"];
    assert_eq!(place.failure(&own).0, "own_grant");
    let nobody = ["member", "grant", "team", "ada", "bob", "dm"];
    assert_eq!(place.failure(&nobody).0, "member_not_found");
}
