//! What a peer at the terminal finds of a broker that lies about keys.

use std::sync::Arc;

use claudemesh_broker::auth::{SecretKey, fingerprint};
use claudemesh_broker::cli::enrol::{self, InviteTerms};
use claudemesh_broker::client;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{Key, MemberId, MeshId};
use claudemesh_broker::store::{NewMesh, Role};
use serde_json::{Value, json};

use crate::harness::Node;
use crate::harness::liar::Liar;
use crate::harness::program::{Answer, Place, text};

/// Ada at a terminal, and others that she knows; all that she hears of the broker comes by
/// way of the liar.
struct Stage {
    node: Node,
    liar: Liar,
    place: Arc<Place>,
    ada: Key,
    bob: Key,
    carol: Key,
}

/// A link to that mesh, for as many.
async fn link(node: &Node, mesh: &MeshId, max_uses: i32, certifies: bool) -> String {
    let mesh = node.store.meshes.get(mesh).await.expect("the store answers").expect("there");
    let terms = InviteTerms {
        role: Role::Member,
        max_uses,
        lifetime_ms: 60_000,
        broker_url: node.url(),
        certifies,
    };
    let now = Timestamp::now();
    let made = enrol::create_invite(&node.store, &mesh, &node.owner.key, &terms, now).await;
    made.expect("an invite").link
}

impl Stage {
    async fn set() -> Self {
        let node = Node::start().await;
        let liar = Liar::before(&node.url()).await;
        let place = Arc::new(Place::new());
        let link = link(&node, &node.mesh, 3, true).await;
        let joined = run(&place, &["peer", "join", &link, "--name", "ada"]).await.object();
        let ada = Key::from(text(&joined["pubkey"]));
        let mut others = Vec::new();
        for name in ["bob", "carol"] {
            let key = SecretKey::generate();
            client::join(None, &link, &key, name).await.expect("joined");
            others.push(key.public_key());
        }
        let carol = others.pop().expect("two");
        let bob = others.pop().expect("two");
        let stage = Self { node, liar, place, ada, bob, carol };
        for name in ["bob", "carol"] {
            assert_eq!(stage.trust_in(name).await.0, "verified");
        }
        stage
    }

    async fn answers(&self, args: &[&str]) -> Answer {
        let url = self.liar.url();
        run(&self.place, &[args, &["--broker", &url]].concat()).await
    }

    async fn types(&self, args: &[&str]) -> Value {
        let answer = self.answers(args).await;
        assert_eq!(answer.code, 0, "{args:?}: {answer:?}");
        answer.object()
    }

    /// How far a member can be relied upon, and why.
    async fn trust_in(&self, name: &str) -> (String, String) {
        let members = self.types(&["peer", "members"]).await["members"].clone();
        let members = members.as_array().expect("a list").clone();
        let member = members.iter().find(|member| member["name"] == name);
        let member = member.unwrap_or_else(|| panic!("no {name}: {members:?}"));
        let why = member["why"].as_str().unwrap_or_default().to_owned();
        (text(&member["trust"]), why)
    }

    /// The broker changes what it says of each member.
    fn lists(&self, change: impl Fn(&mut Vec<Value>) + Send + 'static) {
        self.liar.says(move |frame| {
            if frame["type"] == "members_list" {
                change(frame["members"].as_array_mut().expect("a list"));
            }
        });
    }

    /// For whom the last message to many was sealed.
    fn sealed_for(&self) -> Vec<String> {
        let sent = self.liar.heard("send").expect("a message");
        let keys = sent["sealedKeys"].as_object().expect("sealed");
        keys.keys().cloned().collect()
    }
}

async fn run(place: &Arc<Place>, args: &[&str]) -> Answer {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let place = Arc::clone(place);
    let running = tokio::task::spawn_blocking(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        place.run(&[&args[..], &["--json"]].concat())
    });
    running.await.expect("it runs")
}

fn named<'a>(members: &'a mut [Value], name: &str) -> &'a mut Value {
    members.iter_mut().find(|member| member["name"] == name).expect("listed")
}

#[tokio::test]
async fn nothing_is_sealed_for_a_key_that_the_broker_has_put_in_place_of_a_members() {
    let stage = Stage::set().await;
    let spy = SecretKey::generate().public_key();
    let (put, bob) = (spy.clone(), stage.bob.clone());
    stage.lists(move |members| named(members, "bob")["pubkey"] = json!(put));
    let (trust, why) = stage.trust_in("bob").await;
    assert_eq!(trust, "changed");
    assert!(why.contains("another key") && why.contains("peer verify bob"), "{why}");
    let sent = stage.types(&["peer", "send", "*", "hi all"]).await;
    assert_eq!((&sent["sealed"], &sent["leftOut"][0]["name"]), (&json!(true), &json!("bob")));
    let sealed_for = stage.sealed_for();
    assert!(sealed_for.contains(&stage.carol.to_string()));
    assert!(!sealed_for.contains(&spy.to_string()), "the spy reads nothing");
    let direct = stage.answers(&["peer", "send", spy.as_str(), "hi"]).await;
    let (code, message) = direct.failure();
    assert_eq!(code, "key_changed");
    assert!(message.contains("--accept"), "{message}");
    stage.types(&["peer", "send", bob.as_str(), "to the key that is known"]).await;

    // By the number both find that somebody stands between them.
    let shown = stage.types(&["peer", "verify", "bob"]).await;
    assert_eq!(shown["fingerprint"], fingerprint(&stage.ada, &spy));
    assert_ne!(shown["fingerprint"], fingerprint(&stage.ada, &bob));
    stage.types(&["peer", "verify", "bob", "--accept"]).await;
    assert_eq!(stage.trust_in("bob").await.0, "verified", "as she wanted it");
    let direct = stage.answers(&["peer", "send", spy.as_str(), "hi"]).await;
    assert_eq!(direct.failure().0, "no_such_recipient", "sealed, and unknown to the broker behind");
    stage.liar.says(|_| {});
    assert_eq!(stage.trust_in("bob").await.0, "changed");
}

#[tokio::test]
async fn whom_the_broker_has_added_is_told() {
    let stage = Stage::set().await;
    let owner = &stage.node.owner;
    let elsewhere = NewMesh {
        id: MeshId::generate(),
        slug: "elsewhere".to_owned(),
        name: "elsewhere".to_owned(),
        owner_key: owner.pubkey(),
        root_key: "cm9vdA".to_owned(),
        owner_member: MemberId::generate(),
        owner_name: "owner".to_owned(),
        founder: None,
    };
    stage.node.store.meshes.create(Timestamp::now(), &elsewhere).await.expect("a mesh");
    let link = link(&stage.node, &elsewhere.id, 1, true).await;
    let spy = SecretKey::generate();
    let joined = client::join(None, &link, &spy, "spy").await.expect("joined");
    let of = [joined.member.clone()];
    let members = &stage.node.store.members;
    let certificates = members.certificates(&elsewhere.id, &of).await.expect("the store answers");
    let other_meshs = certificates[&joined.member].clone();
    let key = spy.public_key();
    type Forge = Box<dyn Fn(&[Value]) -> Value + Send>;
    let lies: [(&str, Forge, &str); 3] = [
        ("bare", Box::new(|_| Value::Null), "no certificate"),
        (
            "borrower",
            Box::new(|members| {
                let bob = members.iter().find(|member| member["name"] == "bob").expect("listed");
                bob["certificate"].clone()
            }),
            "for another key",
        ),
        ("guest", Box::new(move |_| json!(other_meshs)), "of another mesh"),
    ];
    for (name, forge, reason) in lies {
        let key = key.clone();
        stage.lists(move |members| {
            let certificate = forge(members);
            let mut added = members[0].clone();
            added["memberId"] = json!(name);
            added["name"] = json!(name);
            added["pubkey"] = json!(key);
            added["certificate"] = certificate;
            members.push(added);
        });
        let (trust, why) = stage.trust_in(name).await;
        assert_eq!(trust, "unverified", "{why}");
        assert!(why.contains(reason), "{why}");
        let sent = stage.types(&["peer", "send", "*", "hi all"]).await;
        let told = sent["unverified"].as_array().expect("a list");
        assert!(told.contains(&json!(name)), "{sent}");
    }
}

#[tokio::test]
async fn another_name_or_role_than_before_is_told() {
    let stage = Stage::set().await;
    stage.lists(|members| {
        let (bob, carol) = (json!("carol"), json!("bob"));
        for member in members {
            if member["name"] == "bob" {
                member["name"] = bob.clone();
            } else if member["name"] == "carol" {
                member["name"] = carol.clone();
            }
        }
    });
    for name in ["bob", "carol"] {
        let (trust, why) = stage.trust_in(name).await;
        assert_eq!(trust, "changed");
        assert!(why.contains("its name was another member's"), "{why}");
    }
    stage.lists(|members| named(members, "bob")["name"] = json!("robert"));
    let (trust, why) = stage.trust_in("robert").await;
    assert_eq!(trust, "verified", "the key is the one that it was");
    assert!(why.contains("met as bob"), "{why}");
    stage.lists(|members| named(members, "bob")["role"] = json!("admin"));
    let (_, why) = stage.trust_in("bob").await;
    assert!(why.contains("let in as member, and the broker calls it admin"), "{why}");
}

#[tokio::test]
async fn where_all_must_be_certified_others_are_left_out_and_a_broker_cannot_take_it_back() {
    let stage = Stage::set().await;
    let mesh = &stage.node.mesh;
    let plain = link(&stage.node, mesh, 1, false).await;
    let old = SecretKey::generate();
    client::join(None, &plain, &old, "old").await.expect("joined");
    let old = old.public_key();
    stage.node.store.meshes.require_certificates(mesh, true).await.expect("the store answers");
    for _ in 0..2 {
        let sent = stage.types(&["peer", "send", "*", "hi all"]).await;
        assert_eq!((&sent["sealed"], &sent["leftOut"][0]["name"]), (&json!(true), &json!("old")));
        assert!(!stage.sealed_for().contains(&old.to_string()));
        let direct = stage.answers(&["peer", "send", old.as_str(), "hi"]).await;
        assert_eq!(direct.failure().0, "not_certified");
        stage.liar.says(|frame| {
            if frame["type"] == "members_list" {
                frame["certifiedRequired"] = json!(false);
            }
        });
    }
    stage.types(&["peer", "verify", "old", "--accept"]).await;
    stage.types(&["peer", "send", old.as_str(), "hi"]).await;
}

#[tokio::test]
async fn lists_show_the_word_and_a_message_to_a_name_meets_the_key_that_it_had() {
    let stage = Stage::set().await;
    let old = stage.node.member("old").await;
    let _old = crate::harness::Raw::hello(&stage.node, &old).await;
    let peers = stage.types(&["peer", "list", "--all"]).await;
    let row =
        peers["peers"].as_array().expect("a list").iter().find(|row| row["displayName"] == "old");
    assert_eq!(row.expect("here")["trust"], "unverified", "{peers}");
    let url = stage.liar.url();
    let shown = {
        let place = Arc::clone(&stage.place);
        let run = move || place.run(&["peer", "members", "--broker", &url]);
        tokio::task::spawn_blocking(run).await.expect("it runs").out
    };
    assert!(shown.contains("verified") && shown.contains("no certificate"), "{shown}");
    // The spy in the list of those who are here, under a name that is known.
    stage.types(&["peer", "send", "old", "hi"]).await;
    let spy = SecretKey::generate().public_key();
    stage.liar.says(move |frame| {
        for list in ["peers", "members"] {
            for row in frame[list].as_array_mut().into_iter().flatten() {
                if row["displayName"] == "old" || row["name"] == "old" {
                    row["memberPubkey"] = json!(spy);
                    row["pubkey"] = json!(spy);
                }
            }
        }
    });
    let (code, message) = stage.answers(&["peer", "send", "old", "hi"]).await.failure();
    assert_eq!(code, "key_changed", "{message}");
    assert!(message.contains("peer verify old"), "{message}");
}
