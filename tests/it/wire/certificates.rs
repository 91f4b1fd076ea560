//! Proofs that a mesh's owner let a member in: made by whoever joins, kept by the broker,
//! shown to every member.

use claudemesh_broker::auth::{Certificate, InviteLink, SecretKey};
use claudemesh_broker::cli::enrol::{self, CreatedInvite, InviteTerms};
use claudemesh_broker::client::{self, ClientOptions, Enrolled};
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::store::Role;
use serde_json::{Value, json};

use crate::harness::{Cluster, Node, http};

/// An invite to the node's mesh that lets three in.
async fn invite(node: &Node, certifies: bool) -> CreatedInvite {
    let mesh = node.store.meshes.get(&node.mesh).await.expect("the store answers").expect("there");
    let terms = InviteTerms {
        role: Role::Member,
        max_uses: 3,
        // Invites of one second would be one.
        lifetime_ms: if certifies { 60_000 } else { 90_000 },
        broker_url: node.url(),
        certifies,
    };
    let now = Timestamp::now();
    enrol::create_invite(&node.store, &mesh, &node.owner.key, &terms, now).await.expect("made")
}

async fn joins(node: &Node, link: &str, key: &SecretKey, name: &str) -> Enrolled {
    client::join(Some(&node.url()), link, key, name).await.expect("joined")
}

#[tokio::test]
async fn every_node_shows_the_proof_of_who_joined_by_a_certifying_link() {
    for count in [1, 3] {
        let cluster = Cluster::start(count).await;
        let node = |at: usize| &cluster.nodes[at % count];
        let (proven, plain) = (invite(node(0), true).await, invite(node(0), false).await);
        let keys: [SecretKey; 3] = std::array::from_fn(|_| SecretKey::generate());
        let ada = joins(node(0), &proven.link, &keys[0], "ada").await;
        let bob = joins(node(1), &proven.link, &keys[1], "bob").await;
        let old = joins(node(2), &plain.link, &keys[2], "old").await;
        let owner = node(0).owner.pubkey();
        assert_eq!(ada.owner, owner, "the link names it");
        let options = ClientOptions::session(ada.identity(keys[0].clone()));
        let (client, _inbox) = node(2).connect(options).await;
        let members = client.list_members().await.expect("members");
        let of = |id| members.iter().find(|member| member.member_id == id).expect("listed");
        for (member, key) in [(of(ada.member), &keys[0]), (of(bob.member), &keys[1])] {
            let text = member.certificate.as_deref().expect("kept");
            let certificate = Certificate::read(text).expect("a certificate");
            let key = key.public_key();
            let verdict = certificate.verify(node(0).mesh.as_str(), owner.as_str(), key.as_str());
            assert_eq!(verdict, Ok(()));
            assert_eq!((&*certificate.grant.role, certificate.grant.max_uses), ("member", 3));
        }
        assert_eq!(of(old.member).certificate, None);
        assert_eq!(of(node(0).owner.id.clone()).certificate, None);
    }
}

#[tokio::test]
async fn joining_again_by_the_same_link_is_the_same_member() {
    let node = Node::start().await;
    let (made, key) = (invite(&node, true).await, SecretKey::generate());
    let first = joins(&node, &made.link, &key, "ada").await;
    let again = joins(&node, &made.link, &key, "ada").await;
    assert_eq!((again.member, again.already_member), (first.member, true));
}

#[tokio::test]
async fn what_certifies_nobody_is_refused_and_uses_nothing_up() {
    let node = Node::start().await;
    let (made, other) = (invite(&node, true).await, invite(&node, false).await);
    let link = InviteLink::read(&made.link).expect("a link");
    let (key, stranger) = (SecretKey::generate().public_key(), SecretKey::generate().public_key());
    let ask = |change: &dyn Fn(&mut Value)| {
        let mut body = json!({
            "invite_token": link.token, "invite_payload": link.payload, "peer_pubkey": key,
            "display_name": "ada", "member_signature": link.vouch(&key),
        });
        change(&mut body);
        body
    };
    type Change<'a> = &'a dyn Fn(&mut Value);
    let plain = InviteLink::read(&other.link).expect("a link");
    let cases: [(&str, Change<'_>, &str); 6] = [
        ("no word", &|body| body["member_signature"] = json!(""), "invite_bad_certificate"),
        (
            "a word for another key",
            &|body| body["member_signature"] = json!(link.vouch(&stranger)),
            "invite_bad_certificate",
        ),
        ("another key", &|body| body["peer_pubkey"] = json!(stranger), "invite_bad_certificate"),
        (
            "another role",
            &|body| body["invite_payload"]["role"] = json!("admin"),
            "invite_bad_signature",
        ),
        (
            "without what certifies",
            &|body| _ = body["invite_payload"].as_object_mut().expect("one").remove("invite_id"),
            "invite_bad_signature",
        ),
        (
            "another invite's payload",
            &|body| body["invite_payload"] = json!(plain.payload),
            "invite_bad_signature",
        ),
    ];
    for (what, change, code) in cases {
        let reply = http::post(&node, "/join", &ask(change).to_string()).await;
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!(code)), "{what}");
    }
    let invites = node.store.invites.of_mesh(&node.mesh).await.expect("the store answers");
    assert!(invites.iter().all(|invite| invite.used_count == 0));
    let reply = http::post(&node, "/join", &ask(&|_| {}).to_string()).await;
    assert_eq!(reply.json()["ok"], true, "{reply:?}");
}

#[tokio::test]
async fn where_certificates_are_required_nobody_joins_without_one_on_any_node() {
    for count in [1, 3] {
        let cluster = Cluster::start(count).await;
        let node = |at: usize| &cluster.nodes[at % count];
        let (proven, plain) = (invite(node(0), true).await, invite(node(0), false).await);
        let keys: [SecretKey; 4] = std::array::from_fn(|_| SecretKey::generate());
        joins(node(0), &plain.link, &keys[0], "before").await;
        let (meshes, mesh) = (&node(0).store.meshes, &node(0).mesh);
        assert!(meshes.require_certificates(mesh, true).await.expect("the store answers"));
        assert!(!meshes.require_certificates(mesh, true).await.expect("the store answers"));
        let refused = client::join(Some(&node(1).url()), &plain.link, &keys[1], "late").await;
        let sentence = refused.expect_err("no certificate").to_string();
        assert!(sentence.contains("certificate_required"), "{sentence}");
        let ada = joins(node(2), &proven.link, &keys[2], "ada").await;
        let options = ClientOptions::session(ada.identity(keys[2].clone()));
        let (client, _inbox) = node(1).connect(options).await;
        let list: Value = client.request("list_members", &json!({})).await.expect("a list");
        assert_eq!(list["certifiedRequired"], true);
        assert_eq!(list["members"].as_array().map(Vec::len), Some(3), "who was there stays");
        assert!(meshes.require_certificates(mesh, false).await.expect("the store answers"));
        joins(node(1), &plain.link, &keys[3], "later").await;
    }
}

#[tokio::test]
async fn the_secret_of_a_link_never_reaches_the_broker() {
    let mut node = Node::start().await;
    let made = invite(&node, true).await;
    joins(&node, &made.link, &SecretKey::generate(), "ada").await;
    let (_, secret) = made.link.split_once('.').expect("a secret");
    node.stop().await;
    let holds = |text: &str| {
        std::fs::read_dir(node.data_dir()).expect("a folder").any(|entry| {
            let bytes = std::fs::read(entry.expect("readable").path()).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    };
    let link = InviteLink::read(&made.link).expect("a link");
    assert!(holds(&link.token), "the search finds what is there");
    assert!(!holds(secret));
}
