//! Keys of topics by the HTTP API: who seals them for whom.

use serde_json::{Value, json};

use super::topics::{both_key, creates, joins, send};
use super::{call, coded, key, refusal};
use crate::harness::{Node, Raw};

fn sealed(member: &Value, text: &str) -> Value {
    json!({ "memberId": member, "encryptedKey": text, "nonce": "bm9uY2U=" })
}

#[tokio::test]
async fn whoever_has_a_topics_key_seals_it_for_the_others_once() {
    let node = Node::start().await;
    let (ada, bob) = (node.member("ada").await, node.member("bob").await);
    let mut a = Raw::hello(&node, &ada).await;
    let mut b = Raw::hello(&node, &bob).await;
    let topic = creates(&mut a, "t", "private").await;
    let invite = json!({ "type": "topic_invite", "topic": "t", "member": "bob" });
    assert_eq!(a.ask(invite).await["type"], "ack");
    joins(&mut b, "t").await;
    // A key of the API that only reads will do, as the command line has it.
    let adas = key(&mut a, json!(["read"]), json!({})).await.1;
    let bobs = key(&mut b, json!(["read"]), json!({})).await.1;
    let pending = call(&node, "/api/v1/topics/t/pending-seals", &adas).await.json();
    let expected = json!({ "topic": "t", "topicId": topic, "senderPubkey": pending["senderPubkey"],
        "pending": [{ "memberId": bob.id, "pubkey": bob.pubkey(), "displayName": "bob" }] });
    assert_eq!(pending, expected);
    let missing = call(&node, "/api/v1/topics/t/key", &bobs).await;
    let error = json!("key_not_sealed_for_member");
    assert_eq!((missing.status, &missing.json()["error"]), (404, &error));
    let seal = async |secret: &str, member: Value, text: &str| {
        let reply = send(&node, "POST", "/topics/t/seal", secret, sealed(&member, text)).await;
        (reply.status, reply.json())
    };
    let (status, refused) = seal(&bobs, json!(bob.id), "eA==").await;
    assert_eq!((status, &refused["error"]), (403, &error), "he has nothing to seal");
    let (status, refused) = seal(&adas, json!("nobody"), "eA==").await;
    assert_eq!((status, &refused["error"]), (404, &json!("recipient_not_in_topic")));
    let (status, done) = seal(&adas, json!(bob.id), "Zmlyc3Q=").await;
    let expected = json!({ "topic": "t", "topicId": topic, "memberId": bob.id,
        "sealedAt": done["sealedAt"] });
    assert_eq!((status, &done), (200, &expected));
    let (status, refused) = seal(&adas, json!(bob.id), "c2Vjb25k").await;
    assert_eq!((status, &refused["error"]), (409, &json!("already_sealed")));
    let held = call(&node, "/api/v1/topics/t/key", &bobs).await.json();
    assert_eq!(held["encryptedKey"], "Zmlyc3Q=", "nobody's copy is replaced by another");
    assert_eq!(seal(&bobs, json!(bob.id), "b3du").await.0, 200, "one's own may be");
    let pending = call(&node, "/api/v1/topics/t/pending-seals", &adas).await.json();
    assert_eq!(pending["pending"], json!([]));
    assert_eq!(node.audit_count("topic_key_sealed").await, 2);

    let writes = both_key(&mut a).await;
    let claim = json!({ "encryptedKeyPubkey": "AB".repeat(32), "encryptedKey": "eA==",
        "nonce": "eA==" });
    let reply = send(&node, "POST", "/topics/t/claim-key", &writes, claim.clone()).await;
    assert_eq!((reply.status, &reply.json()["error"]), (409, &json!("already_encrypted")));
    assert_eq!(reply.json()["senderPubkey"], pending["senderPubkey"]);
    let reply = send(&node, "POST", "/topics/t/claim-key", &adas, claim).await;
    let refused = refusal(&reply, "/api/v1/topics/t/claim-key");
    assert_eq!(refused, coded(403, "error.api_key_missing_capability"));
}
