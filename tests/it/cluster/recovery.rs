//! What a node committed and, since it died, told nobody: it comes in its place,
//! before what its sender sends next through another node, and not only when its
//! claim runs out. Claims outlive these tests.

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{self, Key, MessageId, PresenceId};
use claudemesh_broker::protocol::Priority;
use claudemesh_broker::store::{Envelope, NewEnvelope, Reach};
use serde_json::{Value, json};

use crate::harness::{Cluster, Member, Raw, Setup};

const LONG_MS: i64 = 3_600_000;

fn setup() -> Setup {
    Setup::new(2).set("REDELIVERY_SECONDS", 3600)
}

/// A sender on the first node, a receiver on the second.
struct Scene {
    cluster: Cluster,
    sender: Member,
    sender_key: SecretKey,
    sender_socket: Raw,
    receiver: Raw,
    receiver_key: Key,
    receiver_presence: PresenceId,
}

impl Scene {
    async fn on(cluster: Cluster) -> Self {
        let [one, two] = &cluster.nodes[..] else { panic!("two nodes") };
        let (sender, receiver) = (one.member("sender").await, one.member("receiver").await);
        let (sender_key, receiver_key) = (SecretKey::generate(), SecretKey::generate());
        let (receiver, ack) = Raw::session(two, &receiver, &receiver_key).await;
        let receiver_presence = PresenceId::from(ack["presenceId"].as_str().expect("an id"));
        let (sender_socket, _) = Raw::session(one, &sender, &sender_key).await;
        let receiver_key = receiver_key.public_key();
        let mut scene = Self {
            cluster,
            sender,
            sender_key,
            sender_socket,
            receiver,
            receiver_key,
            receiver_presence,
        };
        let id = scene.send("before").await;
        assert_eq!(scene.receiver.message().await["messageId"], id);
        scene
    }

    async fn send(&mut self, text: &str) -> String {
        self.sender_socket.sent(self.receiver_key.as_str(), "next", text).await
    }

    /// The sender comes back, on the second node.
    async fn sender_moves(&mut self) {
        let node = &self.cluster.nodes[1];
        self.sender_socket = Raw::session(node, &self.sender, &self.sender_key).await.0;
    }

    /// As a node does that dies before it tells anybody.
    async fn commit(&self, target: &str, reach: Reach) -> NewEnvelope {
        let envelope = NewEnvelope {
            envelope: Envelope {
                id: MessageId::generate(),
                mesh: self.cluster.nodes[0].mesh.clone(),
                sender_member: self.sender.id.clone(),
                sender_name: "sender".to_owned(),
                sender_session_key: Some(self.sender_key.public_key()),
                target_spec: target.to_owned(),
                priority: Priority::Next,
                nonce: "bm9uY2U=".to_owned(),
                ciphertext: "b3JwaGFu".to_owned(),
                client_message_id: Some(id::generate()),
                request_fingerprint: None,
                reply_to_id: None,
                scheduled: None,
                properties: None,
            },
            reach,
        };
        let batch = std::slice::from_ref(&envelope);
        let store = &self.cluster.nodes[0].store;
        store.envelopes.accept(Timestamp::now(), batch).await.expect("it is kept");
        envelope
    }

    async fn commit_direct(&self) -> NewEnvelope {
        let claim = (self.receiver_presence.clone(), Timestamp::now().plus_ms(LONG_MS));
        self.commit(self.receiver_key.as_str(), Reach::Direct { claim: Some(claim), note: None })
            .await
    }

    async fn assert_is_heard_when_sent_again(&mut self, orphan: &NewEnvelope) {
        let again = json!({
            "type": "send", "targetSpec": orphan.target_spec, "priority": "next",
            "nonce": orphan.nonce, "ciphertext": orphan.ciphertext,
            "client_message_id": orphan.client_message_id,
        });
        let ack = self.sender_socket.ask(again).await;
        assert_eq!(ack["messageId"], orphan.id.as_str(), "the same message: {ack}");
        self.assert_hears(&[orphan.id.as_str()]).await;
    }

    async fn assert_hears(&mut self, ids: &[&str]) {
        for id in ids {
            let push: Value = self.receiver.message().await;
            assert_eq!(push["messageId"], *id);
        }
    }
}

#[tokio::test]
async fn a_direct_message_comes_before_the_next_one() {
    let mut scene = Scene::on(setup().start().await).await;
    let orphan = scene.commit_direct().await;
    scene.sender_moves().await;
    let next = scene.send("next").await;
    scene.assert_hears(&[orphan.id.as_str(), &next]).await;
}

#[tokio::test]
async fn a_direct_message_comes_before_the_next_multicast() {
    let mut scene = Scene::on(setup().start().await).await;
    let orphan = scene.commit_direct().await;
    scene.sender_moves().await;
    let next = scene.sender_socket.sent("*", "next", "next").await;
    scene.assert_hears(&[orphan.id.as_str(), &next]).await;
}

#[tokio::test]
async fn a_multicast_comes_before_the_next_direct_message() {
    let mut scene = Scene::on(setup().start().await).await;
    let orphan = scene.commit("*", Reach::Multicast).await;
    scene.sender_moves().await;
    let next = scene.send("next").await;
    scene.assert_hears(&[orphan.id.as_str(), &next]).await;
}

/// The same when the receiver is on the node to which the sender comes, and
/// when it stays where the other node has to be told.
#[tokio::test]
async fn it_comes_first_across_nodes_too() {
    let mut scene = Scene::on(setup().start().await).await;
    let orphan = scene.commit_direct().await;
    let node = &scene.cluster.nodes[0];
    scene.sender_socket = Raw::session(node, &scene.sender, &scene.sender_key).await.0;
    let next = scene.send("next").await;
    scene.assert_hears(&[orphan.id.as_str(), &next]).await;
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_looked_for() {
    let mut scene = Scene::on(setup().start().await).await;
    let direct = scene.commit_direct().await;
    scene.assert_is_heard_when_sent_again(&direct).await;
    let multicast = scene.commit("*", Reach::Multicast).await;
    scene.assert_is_heard_when_sent_again(&multicast).await;
}

/// Another node claimed it for a session here, and cannot tell: no Redis.
#[tokio::test]
async fn without_redis_the_store_is_asked_for_what_was_claimed() {
    let mut scene = Scene::on(setup().start().await).await;
    scene.cluster.redis.kill();
    let orphan = scene.commit_direct().await;
    scene.assert_hears(&[orphan.id.as_str()]).await;
    // What is sent now is not claimed for a session that cannot be told of it.
    let next = scene.send("next").await;
    scene.assert_hears(&[&next]).await;
}
