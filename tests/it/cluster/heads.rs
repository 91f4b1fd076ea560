//! Heads of audit chains, which each node with the key would sign.

use claudemesh_broker::audit::{HEAD_EVENT, SignedHeads};
use claudemesh_broker::auth::SecretKey;
use serde_json::json;

use crate::harness::{Raw, Setup, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_head_is_signed_by_one_node() {
    let seed = "5a".repeat(32);
    let public = SecretKey::from_seed_hex(&seed).expect("a seed").public_key();
    let setup = Setup::new(3).set("AUDIT_KEY", &seed).set("AUDIT_HEAD_SECONDS", "0.1");
    let cluster = setup.start().await;
    let node = &cluster.nodes[0];
    let rows =
        async || node.store.audit.after(&node.mesh, i64::MIN, 10_000).await.expect("readable");
    let mut owner = Raw::hello(node, &node.owner).await;
    for round in 1..=5 {
        let key = format!("k{round}");
        owner.ask(json!({"type": "set_state", "key": key, "value": round})).await;
        until("the chain ends by a head again", async || {
            let rows = rows().await;
            let (sets, last) =
                (rows.iter().filter(|row| row.event_type == "state_set"), rows.last());
            sets.count() == round && last.is_some_and(|row| row.event_type == HEAD_EVENT)
        })
        .await;
    }
    let rows = rows().await;
    let mut heads = SignedHeads::new(&node.mesh, vec![public]);
    for row in &rows {
        heads.meet(&row.as_link()).unwrap_or_else(|error| panic!("{error:?}: {row:?}"));
    }
    assert!(heads.count() >= 5, "{rows:?}");
    let is_head = |at: usize| rows[at].event_type == HEAD_EVENT;
    assert!((1..rows.len()).all(|at| !is_head(at) || !is_head(at - 1)), "{rows:?}");
}
