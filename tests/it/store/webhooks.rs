//! Webhooks: who makes and deletes them, which calls are answered, and what waits for
//! an address until it is told.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::{self, MessageId};
use claudemesh_broker::protocol::WebhookEvent;
use claudemesh_broker::store::{
    Call, Deleted, NewWebhook, Note, OutClaim, Outcome, Reach, Retention, Stores, Told, Waiting,
};
use futures_util::future::join_all;
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at, changed};

impl Fixture {
    fn hook(&self, peer: &Peer, name: &str) -> NewWebhook {
        NewWebhook {
            id: id::generate(),
            author: self.author(peer),
            name: name.to_owned(),
            secret: format!("secret of {name} in {}", self.mesh),
            durable: false,
            signing: None,
            signing_secret: None,
            url: None,
            events: Vec::new(),
        }
    }

    /// An address that is told of that.
    async fn told_of(&self, name: &str, events: &[WebhookEvent]) -> NewWebhook {
        let hook = NewWebhook {
            url: Some(format!("https://{name}.example/")),
            signing_secret: Some("whsec_aa".to_owned()),
            events: events.to_vec(),
            ..self.hook(&self.owner, name)
        };
        assert!(self.store.webhooks.create(T0, &hook).await.expect("writable"));
        hook
    }

    fn call(&self, hook: &NewWebhook, key: Option<&str>, delivered: i64) -> Call {
        Call {
            webhook: hook.id.clone(),
            author: self.author(&self.owner),
            name: hook.name.clone(),
            bytes: 7,
            key: key.map(str::to_owned),
            since: at(-86_400),
            delivered,
        }
    }

    /// Claims all that is due; of it what is this mesh's.
    async fn claimed(&self, now: Timestamp, until: Timestamp, claim: &str) -> Vec<Waiting> {
        let claim = OutClaim { id: claim.to_owned(), until, limit: 1000, events: 64 };
        let mut claimed = self.store.webhooks.claim(now, &claim).await.expect("writable");
        claimed.retain(|waiting| waiting.mesh == self.mesh);
        claimed
    }

    async fn settled(&self, now: Timestamp, claim: &str, hook: &NewWebhook, out: Outcome) -> bool {
        let (claim, webhook) = (claim.to_owned(), hook.id.clone());
        let told = Told { claim, webhook, outcome: out, until: None };
        self.store.webhooks.settle(now, &told).await.expect("writable")
    }
}

fn events_of(waiting: &[Waiting]) -> Vec<&str> {
    waiting.iter().flat_map(|waiting| &waiting.events).map(|event| &*event.event).collect()
}

pub(crate) async fn a_webhook_is_listed_until_it_is_deleted(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let webhooks = &store.webhooks;
    for name in ["b", "a"] {
        assert!(webhooks.create(T0, &here.hook(&ada, name)).await.expect("writable"));
    }
    assert!(!webhooks.create(T0, &here.hook(&bob, "a")).await.expect("writable"), "it is taken");
    let names = async |after: Option<&'static str>| {
        let found = webhooks.list(&here.mesh, after, 10).await.expect("readable");
        found.into_iter().map(|hook| hook.name).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(None).await, names(Some("a")).await),
        (vec!["a".into(), "b".into()], vec!["b".into()])
    );
    let by = here.author(&bob);
    let delete = async |name: &str, only_of| {
        webhooks.delete(at(1), &by, name, only_of).await.expect("writable")
    };
    assert_eq!(delete("a", Some(&bob.id)).await, Deleted::Foreign);
    assert_eq!(delete("nope", None).await, Deleted::Absent);
    assert_eq!(delete("a", None).await, Deleted::Done);
    assert_eq!(delete("a", None).await, Deleted::Absent);
    assert_eq!(names(None).await, ["b"]);
    assert!(!webhooks.create(T0, &here.hook(&ada, "a")).await.expect("writable"), "still taken");
    let rows = [here.audit_of("webhook_created").await, here.audit_of("webhook_deleted").await];
    assert_eq!([rows[0].len(), rows[1].len()], [2, 1]);
    assert_eq!(rows[1][0].payload, json!({ "name": "a" }));
    assert_eq!(rows[1][0].actor.as_deref(), Some(bob.id.as_str()));
}

pub(crate) async fn a_secret_leads_to_its_webhook_while_its_maker_is_a_member(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, elsewhere) = (here.member("ada").await, here.another().await);
    let hook = here.hook(&ada, "ci");
    store.webhooks.create(T0, &hook).await.expect("writable");
    let found = async |mesh, secret: &str| {
        let found = store.webhooks.by_secret(mesh, secret).await.expect("readable");
        found.into_iter().map(|hook| hook.id).collect::<Vec<_>>()
    };
    assert_eq!(found(&here.mesh, &hook.secret).await, std::slice::from_ref(&hook.id));
    for secret in ["", "secret of ci", &hook.secret[1..]] {
        assert!(found(&here.mesh, secret).await.is_empty(), "{secret:?}");
    }
    assert!(found(&elsewhere.mesh, &hook.secret).await.is_empty());
    store.bans.ban(at(1), &here.about(&ada)).await.expect("a member");
    assert!(found(&here.mesh, &hook.secret).await.is_empty(), "its maker was shut out");
}

pub(crate) async fn a_call_is_taken_once_by_its_key(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (hook, other) = (here.hook(&here.owner, "ci"), here.hook(&here.owner, "other"));
    for hook in [&hook, &other] {
        store.webhooks.create(T0, hook).await.expect("writable");
    }
    let call = async |hook: &NewWebhook, key, delivered, now| {
        let call = Call { since: now, ..here.call(hook, key, delivered) };
        store.webhooks.receive(now, &call).await.expect("writable")
    };
    let here_ref = &here;
    let kept = async |hook: &NewWebhook, key, delivered| {
        let call = here_ref.call(hook, key, delivered);
        here_ref.store.webhooks.receive(T0, &call).await.expect("writable")
    };
    assert_eq!(kept(&hook, Some("k"), 3).await, None);
    assert_eq!(kept(&hook, Some("k"), 5).await, Some(3), "answered as before");
    let answered = store.webhooks.answered(&hook.id, "k", at(-1)).await.expect("readable");
    assert_eq!(answered, Some(3));
    for (key, since) in [("l", at(-1)), ("k", at(1))] {
        let answered = store.webhooks.answered(&hook.id, key, since).await.expect("readable");
        assert_eq!(answered, None, "{key}");
    }
    assert_eq!(kept(&hook, Some("l"), 5).await, None);
    assert_eq!(kept(&other, Some("k"), 5).await, None, "keys are a webhook's own");
    assert_eq!((kept(&hook, None, 1).await, kept(&hook, None, 1).await), (None, None));
    let rows = here.audit_of("webhook_received").await;
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[0].payload, json!({ "name": "ci", "bytes": 7 }));
    // Of eight at once, one.
    let calls = join_all((0..8).map(|n| kept(&hook, Some("at once"), n))).await;
    assert_eq!(calls.iter().filter(|answer| answer.is_none()).count(), 1, "{calls:?}");
    // A day later it is another call.
    assert_eq!(call(&hook, Some("k"), 9, at(86_401)).await, None);
    store.webhooks.forget_calls(at(86_400)).await.expect("writable");
    assert_eq!(kept(&hook, Some("k"), 1).await, Some(9));
    assert_eq!(kept(&hook, Some("l"), 1).await, None, "forgotten");
}

pub(crate) async fn who_comes_and_goes_is_told_in_its_order_to_who_asked(store: Stores) {
    use WebhookEvent::{PeerJoined, PeerLeft, Task};
    let here = Fixture::new(store.clone()).await;
    let both = here.told_of("both", &[PeerJoined, PeerLeft]).await;
    here.told_of("joins", &[PeerJoined]).await;
    here.told_of("tasks", &[Task]).await;
    here.another().await.told_of("elsewhere", &[PeerJoined]).await;
    let ada = here.member("ada").await;
    let presence = here.present(&ada).await;
    store.presences.end(at(1), &[here.ending(&presence, &ada)]).await.expect("it is open");
    here.present(&ada).await;
    let mut claimed = here.claimed(at(2), at(12), "c").await;
    claimed.sort_by(|a, b| a.name.cmp(&b.name));
    let told: Vec<(&str, Vec<&str>)> = claimed
        .iter()
        .map(|waiting| (&*waiting.name, events_of(std::slice::from_ref(waiting))))
        .collect();
    let joined = "peer_joined";
    let expected = [("both", vec![joined, "peer_left", joined]), ("joins", vec![joined, joined])];
    assert_eq!(told, expected);
    let first = &claimed[0].events[0];
    assert_eq!((&first.data["memberId"], &first.data["name"]), (&json!(ada.id), &json!("ada")));
    assert_eq!((&first.data["pubkey"], first.created_at), (&json!(ada.key), T0));
    // Nobody else has them meanwhile; then whoever comes.
    assert!(here.claimed(at(3), at(13), "other").await.is_empty());
    let settled = here.settled(at(3), "c", &both, Outcome::Taken { event: first.id }).await;
    assert!(settled);
    let again = here.claimed(at(12), at(22), "other").await;
    let both_again: Vec<_> = again.into_iter().filter(|waiting| waiting.name == "both").collect();
    assert_eq!(events_of(&both_again), ["peer_left", joined]);
    let listed = store.webhooks.list(&here.mesh, None, 10).await.expect("readable");
    assert_eq!((listed[0].waiting, listed[0].delivered_at), (2, Some(at(3))));
}

pub(crate) async fn an_event_that_fails_waits_and_is_given_up_in_the_end(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let hook = here.told_of("hook", &[WebhookEvent::PeerJoined]).await;
    here.present(&here.owner).await;
    let [waiting] = &here.claimed(at(1), at(11), "c").await[..] else { panic!("one waits") };
    let event = waiting.events[0].id;
    let failed = Outcome::Failed { error: "status 500".to_owned(), next_at: at(5) };
    assert!(!here.settled(at(1), "not mine", &hook, failed.clone()).await);
    assert!(here.settled(at(1), "c", &hook, failed).await);
    assert!(here.claimed(at(4), at(14), "d").await.is_empty(), "its time has not come");
    let [waiting] = &here.claimed(at(5), at(15), "d").await[..] else { panic!("one waits") };
    assert_eq!((waiting.attempts, waiting.events[0].id), (1, event));
    let given_up = Outcome::GivenUp { event, error: "status 502".to_owned() };
    assert!(here.settled(at(6), "d", &hook, given_up).await);
    let [listed] = &store.webhooks.list(&here.mesh, None, 10).await.expect("readable")[..] else {
        panic!("one is listed")
    };
    let seen = (listed.waiting, listed.dead_letters, listed.last_error.as_deref());
    assert_eq!(seen, (0, 1, Some("status 502")));
    assert!(here.claimed(at(7), at(17), "e").await.is_empty());
}

pub(crate) async fn in_an_archived_mesh_nobody_calls_and_nobody_is_told(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let hook = here.hook(&here.owner, "ci");
    assert!(store.webhooks.create(T0, &hook).await.expect("writable"));
    here.told_of("hook", &[WebhookEvent::PeerJoined]).await;
    store.presences.open(T0, &[here.opening(&here.owner)]).await.expect("a good presence");
    let found = async || {
        let found = store.webhooks.by_secret(&here.mesh, &hook.secret).await.expect("readable");
        found.len()
    };
    assert_eq!((found().await, here.claimed(at(1), at(1), "c").await.len()), (1, 1));
    assert!(store.meshes.archive(at(2), &here.mesh, None).await.expect("writable"));
    assert_eq!((found().await, here.claimed(at(3), at(4), "d").await.len()), (0, 0));
}

pub(crate) async fn what_has_no_row_is_noted_once_while_it_waits(store: Stores) {
    use WebhookEvent::{Capacity, MailWaiting};
    let here = Fixture::new(store.clone()).await;
    let hook = here.told_of("hook", &[MailWaiting]).await;
    let asked = store.webhooks.asked().await.expect("readable");
    assert!(asked.contains(&(here.mesh.clone(), MailWaiting)));
    assert!(!asked.contains(&(here.mesh.clone(), Capacity)));
    let note = |subject: &str, event| Note {
        mesh: here.mesh.clone(),
        event,
        subject: subject.to_owned(),
        data: json!({ "pubkey": subject }),
    };
    let notes = [note("ada", MailWaiting), note("bob", MailWaiting), note("full", Capacity)];
    store.webhooks.note(T0, &notes).await.expect("writable");
    store.webhooks.note(T0, &notes[..1]).await.expect("writable");
    let [waiting] = &here.claimed(at(1), at(11), "c").await[..] else { panic!("one waits") };
    let told: Vec<_> = waiting.events.iter().map(|event| event.data["pubkey"].clone()).collect();
    assert_eq!(told, [json!("ada"), json!("bob")]);
    let taken = Outcome::Taken { event: waiting.events[0].id };
    assert!(here.settled(at(2), "c", &hook, taken).await);
    store.webhooks.note(at(3), &notes[..1]).await.expect("writable");
    let [waiting] = &here.claimed(at(4), at(14), "d").await[..] else { panic!("one waits") };
    let told: Vec<_> = waiting.events.iter().map(|event| event.data["pubkey"].clone()).collect();
    assert_eq!(told, [json!("bob"), json!("ada")], "it was told, so it is told again");
}

pub(crate) async fn that_mail_waits_is_written_with_the_mail(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    here.told_of("hook", &[WebhookEvent::MailWaiting]).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let waits = |to: &Peer| {
        let note = Note {
            mesh: here.mesh.clone(),
            event: WebhookEvent::MailWaiting,
            subject: to.key.to_string(),
            data: json!({ "pubkey": to.key }),
        };
        changed(here.direct(&here.owner, &to.key), |envelope| {
            envelope.client_message_id = Some(format!("to {}", to.name));
            envelope.reach = Reach::Direct { claim: None, note: Some(Box::new(note)) };
        })
    };
    let batch = [waits(&ada), waits(&ada), here.direct(&here.owner, &bob.key)];
    store.envelopes.accept(T0, &batch).await.expect("good envelopes");
    let told = async |second: i64| {
        let waiting = here.claimed(at(second), at(second), "c").await;
        let events = waiting.iter().flat_map(|waiting| &waiting.events);
        events.map(|event| (event.id, event.data["pubkey"].clone())).collect::<Vec<_>>()
    };
    let first = told(1).await;
    let [(event, key)] = &first[..] else { panic!("{first:?}") };
    assert_eq!(*key, json!(ada.key));
    // What was told, and comes again, is not told again.
    let hooks = store.webhooks.list(&here.mesh, None, 1).await.expect("readable");
    let taken = Told {
        claim: "c".to_owned(),
        webhook: hooks[0].id.clone(),
        outcome: Outcome::Taken { event: *event },
        until: None,
    };
    store.webhooks.settle(at(2), &taken).await.expect("writable");
    store.envelopes.accept(at(3), &[waits(&ada)]).await.expect("a repeat");
    assert_eq!(told(4).await, []);
    store.envelopes.accept(at(5), &[waits(&bob)]).await.expect("a good envelope");
    assert_eq!(told(6).await.len(), 1);
}

pub(crate) async fn a_webhook_keeps_a_thousand_events_and_counts_the_others(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    here.told_of("hook", &[WebhookEvent::PeerJoined, WebhookEvent::MailWaiting]).await;
    let openings: Vec<_> = (0..1002).map(|_| here.opening(&here.owner)).collect();
    for batch in openings.chunks(256) {
        store.presences.open(T0, batch).await.expect("good presences");
    }
    let note = |subject: &str| Note {
        mesh: here.mesh.clone(),
        event: WebhookEvent::MailWaiting,
        subject: subject.to_owned(),
        data: json!({}),
    };
    store.webhooks.note(T0, &[note("ada"), note("bob")]).await.expect("writable");
    let [listed] = &store.webhooks.list(&here.mesh, None, 10).await.expect("readable")[..] else {
        panic!("one is listed")
    };
    assert_eq!((listed.waiting, listed.dead_letters), (1000, 4));
    let error = listed.last_error.as_deref().expect("a sentence");
    assert!(error.contains("too many"), "{error}");
}

/// Years before, since `expire` looks at every mesh.
pub(crate) async fn a_message_that_expires_is_told(store: Stores) {
    let then = T0.plus_ms(-3 * 365 * 86_400_000);
    let here = Fixture::new(store.clone()).await;
    let ada = here.member("ada").await;
    here.told_of("hook", &[WebhookEvent::MessageExpired]).await;
    let id = MessageId::generate();
    let envelope = changed(here.direct(&here.owner, &ada.key), |envelope| {
        envelope.envelope.id = id.clone();
    });
    here.send(then, &envelope).await;
    let limits = Retention {
        delivered_before: then,
        undelivered_before: then.plus_ms(1),
        keys_before: then,
        limit: 1000,
    };
    store.messages.expire(then.plus_ms(1), &limits).await.expect("writable");
    let [waiting] = &here.claimed(at(1), at(11), "c").await[..] else { panic!("one waits") };
    assert_eq!(events_of(std::slice::from_ref(waiting)), ["message_expired"]);
    let data = &waiting.events[0].data;
    assert_eq!((&data["messageId"], &data["targetSpec"]), (&json!(id), &json!(ada.key)));
    assert!(data.get("ciphertext").is_none());
}
