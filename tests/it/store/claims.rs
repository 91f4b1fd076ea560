//! Mail that a presence asks for.

use claudemesh_broker::protocol::Priority;
use claudemesh_broker::store::{ClaimRequest, NewEnvelope, Reach, Stores};
use std::collections::HashSet;

use super::fixture::{Fixture, T0, at, changed, fresh_key};

pub(crate) async fn mail_comes_in_order_from_both_mailboxes(store: Stores) {
    let here = Fixture::new(store).await;
    let (peer, session_key) = (here.member("ada").await, fresh_key());
    let presence = here.present(&peer).await;
    let mut sent = Vec::new();
    for key in [&session_key, &peer.key, &peer.key, &session_key, &peer.key] {
        sent.extend(here.mail(key, 1).await);
    }
    let ask = ClaimRequest { session_key: Some(session_key), ..here.asks(&presence, &peer) };
    assert_eq!(here.claims(T0, &ask).await, sent);
}

pub(crate) async fn a_session_key_like_the_member_key_gives_mail_once(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let presence = here.present(&peer).await;
    let sent = here.mail(&peer.key, 2).await;
    let session_key = Some(peer.key.clone());
    let ask = ClaimRequest { session_key, ..here.asks(&presence, &peer) };
    assert_eq!(here.claims(T0, &ask).await, sent);
}

pub(crate) async fn a_visitor_is_given_nothing_of_its_members(store: Stores) {
    let here = Fixture::new(store).await;
    let (peer, session_key) = (here.member("ada").await, fresh_key());
    let presence = here.present(&peer).await;
    let to_member = here.mail(&peer.key, 2).await;
    let own = here.mail(&session_key, 2).await;
    let ask = ClaimRequest { member_key: None, ..here.asks(&presence, &peer) };
    assert_eq!(here.claims(T0, &ask).await, []);
    let ask = ClaimRequest { session_key: Some(session_key), ..ask };
    assert_eq!(here.claims(T0, &ask).await, own);
    let other = here.present(&peer).await;
    assert_eq!(here.claims(T0, &here.asks(&other, &peer)).await, to_member, "nobody has them");
}

pub(crate) async fn mail_of_others_is_not_given(store: Stores) {
    let here = Fixture::new(store).await;
    let there = here.another().await;
    let peer = here.member("ada").await;
    let presence = here.present(&peer).await;
    here.mail(&here.owner.key, 1).await;
    here.mail(&fresh_key(), 1).await;
    there.mail(&peer.key, 1).await;
    here.send(T0, &here.multicast(&here.owner)).await;
    assert!(here.claims(T0, &here.asks(&presence, &peer)).await.is_empty());
}

pub(crate) async fn a_limit_gives_the_oldest(store: Stores) {
    let here = Fixture::new(store).await;
    let (peer, session_key) = (here.member("ada").await, fresh_key());
    let presence = here.present(&peer).await;
    let mut sent = here.mail(&peer.key, 2).await;
    sent.extend(here.mail(&session_key, 2).await);
    sent.extend(here.mail(&peer.key, 2).await);
    let mut ask = here.asks(&presence, &peer);
    (ask.session_key, ask.limit) = (Some(session_key), 3);
    assert_eq!(here.claims(T0, &ask).await, sent[..3]);
    assert_eq!(here.message(&sent[3]).await.expect("queued").claimed_by, None);
    ask.in_flight = sent[..3].to_vec();
    assert_eq!(here.claims(T0, &ask).await, sent[3..]);
}

pub(crate) async fn a_busy_presence_gets_what_is_urgent(store: Stores) {
    let here = Fixture::new(store).await;
    let (peer, session_key) = (here.member("ada").await, fresh_key());
    let presence = here.present(&peer).await;
    let mut sent = Vec::new();
    for (to, priority) in [
        (&peer.key, Priority::Low),
        (&peer.key, Priority::Now),
        (&session_key, Priority::Next),
        (&session_key, Priority::Now),
    ] {
        let envelope =
            changed(here.direct(&here.owner, to), |envelope| envelope.priority = priority);
        here.send(T0, &envelope).await;
        sent.push(envelope.envelope.id);
    }
    let mut ask = here.asks(&presence, &peer);
    (ask.session_key, ask.urgent_only) = (Some(session_key), true);
    assert_eq!(here.claims(T0, &ask).await, [sent[1].clone(), sent[3].clone()]);
    ask.urgent_only = false;
    assert_eq!(here.claims(T0, &ask).await, sent, "what is held comes once it is idle");
}

pub(crate) async fn mail_in_flight_is_not_given_again(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let presence = here.present(&peer).await;
    let sent = here.mail(&peer.key, 3).await;
    let mut ask = here.asks(&presence, &peer);
    assert_eq!(here.claims(T0, &ask).await, sent);
    ask.in_flight = vec![sent[1].clone()];
    let others = [sent[0].clone(), sent[2].clone()];
    assert_eq!(here.claims(at(1), &ask).await, others, "its own claims come again");
}

pub(crate) async fn a_claim_keeps_others_off_until_it_expires(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let (one, two) = (here.present(&peer).await, here.present(&peer).await);
    let sent = here.mail(&peer.key, 2).await;
    assert_eq!(here.claims(T0, &here.asks(&one, &peer)).await, sent);
    assert!(here.claims(at(29), &here.asks(&two, &peer)).await.is_empty());
    let renewed = ClaimRequest { until: at(60), limit: 1, ..here.asks(&one, &peer) };
    assert_eq!(here.claims(at(29), &renewed).await, sent[..1]);
    let ask = ClaimRequest { until: at(90), ..here.asks(&two, &peer) };
    assert_eq!(here.claims(at(30), &ask).await, sent[1..], "the other was renewed");
    assert_eq!(here.claims(at(60), &ask).await, sent, "its own again, and the expired one");
    assert!(here.claims(at(61), &here.asks(&one, &peer)).await.is_empty());
}

pub(crate) async fn an_accepted_claim_keeps_others_off_until_it_expires(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let (one, two) = (here.present(&peer).await, here.present(&peer).await);
    let sent = NewEnvelope {
        reach: Reach::Direct { claim: Some((one.clone(), at(30))), note: None },
        ..here.direct(&here.owner, &peer.key)
    };
    here.send(T0, &sent).await;
    assert_eq!(here.message(&sent.id).await.expect("queued").claimed_by, Some(one.clone()));
    assert!(here.claims(at(29), &here.asks(&two, &peer)).await.is_empty());
    let sent = [sent.envelope.id];
    assert_eq!(here.claims(at(29), &here.asks(&one, &peer)).await, sent);
    assert_eq!(here.claims(at(30), &here.asks(&two, &peer)).await, sent);
}

pub(crate) async fn a_claim_is_given_back_only_by_its_holder(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let peer = here.member("ada").await;
    let (one, two) = (here.present(&peer).await, here.present(&peer).await);
    let sent = here.mail(&peer.key, 2).await;
    assert_eq!(here.claims(T0, &here.asks(&one, &peer)).await, sent);
    store.mail.unclaim(&two, &sent).await.expect("writable");
    assert!(here.claims(at(1), &here.asks(&two, &peer)).await.is_empty(), "not its to give");
    store.mail.unclaim(&one, &sent[..1]).await.expect("writable");
    assert_eq!(here.claims(at(1), &here.asks(&two, &peer)).await, sent[..1]);
}

pub(crate) async fn concurrent_claims_share_nothing(store: Stores) {
    let here = Fixture::new(store).await;
    let peer = here.member("ada").await;
    let batch: Vec<_> = (0..60).map(|_| here.direct(&here.owner, &peer.key)).collect();
    here.accept(&batch).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let presence = here.present(&peer).await;
        let ask = ClaimRequest { limit: 10, ..here.asks(&presence, &peer) };
        let here = here.clone();
        tasks.push(tokio::spawn(async move { here.claims(T0, &ask).await }));
    }
    let mut given = Vec::new();
    for task in tasks {
        given.extend(task.await.expect("no panic"));
    }
    let distinct: HashSet<_> = given.iter().collect();
    assert_eq!((given.len(), distinct.len()), (60, 60), "each went to one presence");
}

pub(crate) async fn mail_that_nobody_holds_is_waiting(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let there = here.another().await;
    let [free, held, empty] = [fresh_key(), fresh_key(), fresh_key()];
    here.mail(&free, 2).await;
    there.mail(&empty, 1).await;
    let claim = Some((here.present(&here.owner).await, at(30)));
    let reach = Reach::Direct { claim, note: None };
    here.send(T0, &NewEnvelope { reach, ..here.direct(&here.owner, &held) }).await;
    let asked: Vec<_> = [&held, &free, &empty].map(|key| (here.mesh.clone(), key.clone())).into();
    let waiting = store.mail.waiting(at(29), &asked).await.expect("readable");
    assert_eq!(waiting, asked[1..2]);
    let waiting = store.mail.waiting(at(30), &asked).await.expect("readable");
    assert_eq!(waiting.iter().collect::<HashSet<_>>(), asked[..2].iter().collect());
    let presence = here.present(&here.owner).await;
    let mut ask = here.asks(&presence, &here.owner);
    (ask.member_key, ask.limit) = (Some(free.clone()), 1);
    here.claims(at(1), &ask).await;
    let waiting = store.mail.waiting(at(2), &asked).await.expect("readable");
    assert_eq!(waiting, asked[1..2], "one of two is left");
    here.confirm_all(&free).await;
    assert!(store.mail.waiting(at(2), &asked).await.expect("readable").is_empty());
}
