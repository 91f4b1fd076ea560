//! Messages that are sent later, while nodes come and go.

use std::collections::{HashMap, HashSet};

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::store::{Author, NewSchedule};
use serde_json::json;

use crate::harness::{Cluster, Raw, Setup, until};

#[tokio::test]
async fn a_message_reaches_a_peer_on_another_node() {
    let cluster = Cluster::start(2).await;
    let [one, two] = &cluster.nodes[..] else { unreachable!() };
    let bob = one.member("bob").await;
    let mut a = Raw::hello(one, &one.owner).await;
    let mut b = Raw::hello(two, &bob).await;
    for to in [json!(bob.pubkey()), json!("*")] {
        let ask = json!({ "type": "schedule", "to": to, "message": "m", "deliverAt": 1 });
        assert_eq!(a.ask(ask).await["type"], "scheduled_ack");
        let push = b.message().await;
        assert_eq!(push["senderPubkey"], json!(one.owner.pubkey()));
        b.confirm(&push).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_are_each_sent_once_while_nodes_are_killed_and_started() {
    const MESSAGES: usize = 1_000;
    let mut cluster = Setup::new(3).start_processes().await;
    let node = &cluster.nodes[0];
    let (mesh, store) = (node.mesh.clone(), node.store.clone());
    let author = Author {
        mesh: mesh.clone(),
        member: node.owner.id.clone(),
        member_name: "owner".to_owned(),
        session_name: "owner".to_owned(),
        presence: "p".into(),
    };
    // Due one after the other over some seconds, in which the nodes die.
    let begin = Timestamp::now().plus_ms(6_000);
    for at in 0..MESSAGES {
        let new = NewSchedule {
            id: format!("{at:032x}"),
            to: "*".to_owned(),
            message: at.to_string(),
            nonce: None,
            deliver_at: begin.plus_ms(at as i64 * 5),
            cron: None,
            timezone: None,
            subtype: None,
            reply_to_id: None,
            hop: 0,
        };
        store.schedules.schedule(Timestamp::now(), &author, &new).await.expect("room");
    }
    let count = async || {
        let page = store.audit.page(&mesh, Some("message_sent"), 0, 0).await;
        usize::try_from(page.expect("the store answers").1).expect("a count")
    };
    for round in 0..6 {
        let before = count().await;
        until("some more are sent", async || {
            let now = count().await;
            now > before || now >= MESSAGES
        })
        .await;
        let process = &mut cluster.processes[round % 3];
        process.kill9().await;
        process.start_again().await;
    }
    for _ in 0..6 {
        // Each wait is as long as anything may take.
        if count().await >= MESSAGES {
            break;
        }
        let before = count().await;
        until("more are sent", async || count().await > before).await;
    }
    until("all are sent", async || count().await >= MESSAGES).await;
    assert_eq!(count().await, MESSAGES);
    let (mut after, mut seen, mut sent) = (0, HashMap::new(), HashSet::new());
    loop {
        let page = store.mail.multicasts_after(&mesh, after, 256).await.expect("readable");
        let Some(last) = page.last() else { break };
        after = last.seq;
        for envelope in page {
            sent.insert(envelope.seq);
            *seen.entry(envelope.envelope.ciphertext).or_insert(0) += 1;
        }
    }
    assert!(seen.len() == MESSAGES && seen.values().all(|count| *count == 1), "{seen:?}");
    // And each of them has the one row that tells of it, whose id is its place.
    let rows = store.audit.page(&mesh, Some("message_sent"), 0, 2 * MESSAGES as i64).await;
    let rows = rows.expect("readable").0;
    let told: HashSet<i64> = rows.iter().map(|row| row.id).collect();
    assert_eq!((rows.len(), told.difference(&sent).next()), (MESSAGES, None));
    let due = store.schedules.next_due().await.expect("readable");
    assert_eq!(due, None, "no row is left");
    assert!(cluster.nodes[0].audit_is_valid().await);
}
