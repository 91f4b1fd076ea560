//! Topics: posts in the mesh's order, histories, and how far a member is.

mod reads;

use claudemesh_broker::id::{self, MemberId, MessageId, TopicId};
use claudemesh_broker::protocol::{KeyMaker, TopicRole, Visibility};
use claudemesh_broker::store::{
    Accepted, Claiming, Confirm, CreatedTopic, Joining, NewEnvelope, NewTopic, Post, Reach,
    Sealing, Stores, TopicSeal,
};
use futures_util::future::join_all;

pub(crate) use self::reads::a_member_sees_what_is_said_in_its_topics_and_who_mentions_it;
use super::fixture::{Fixture, Peer, T0, at};

impl Fixture {
    async fn topic_as(&self, lead: &Peer, name: &str, visibility: Visibility) -> CreatedTopic {
        let seal = TopicSeal {
            member: lead.id.clone(),
            encrypted_key: "a2V5".to_owned(),
            nonce: "bm9uY2U=".to_owned(),
        };
        let new = NewTopic {
            id: TopicId::from(id::random()),
            name: name.to_owned(),
            description: Some("about".to_owned()),
            visibility,
            key_pubkey: "ab".repeat(32),
            key_maker: KeyMaker::Client,
            seals: vec![seal],
        };
        let created = self.store.topics.create(T0, &self.author(lead), &new).await;
        created.expect("a good topic")
    }

    /// A public topic of that name, led by its owner.
    pub(crate) async fn topic(&self, name: &str) -> TopicId {
        self.topic_as(&self.owner, name, Visibility::Public).await.id
    }

    async fn joins_topic(&self, peer: &Peer, topic: &TopicId) -> Joining {
        let author = self.author(peer);
        let joining = self.store.topics.join(T0, &author, topic, TopicRole::Member).await;
        joining.expect("a topic")
    }

    fn post(&self, from: &Peer, topic: &TopicId) -> NewEnvelope {
        let mut post = self.multicast(from);
        post.envelope.id = MessageId::from(id::random());
        post.envelope.target_spec = format!("#{topic}");
        post.reach = Reach::Topic(Box::new(Post {
            topic: topic.clone(),
            name: "topic".to_owned(),
            body_version: 1,
            mentions: Vec::new(),
        }));
        post
    }

    pub(crate) async fn posts(&self, from: &Peer, topic: &TopicId) -> i64 {
        self.send(T0, &self.post(from, topic)).await
    }

    /// The seqs of what that member reads after that position.
    async fn reads(&self, peer: &Peer, after: i64) -> Vec<i64> {
        let mut seqs = Vec::new();
        let mut after = after;
        loop {
            let mail = &self.store.topic_mail;
            let page = mail.posts_after(&self.mesh, &peer.id, after, 2).await.expect("readable");
            assert!(page.len() <= 2);
            let Some(last) = page.last() else { return seqs };
            after = last.envelope.seq;
            seqs.extend(page.iter().map(|post| post.envelope.seq));
        }
    }

    async fn missed(&self, peer: &Peer) -> Option<i64> {
        let mail = &self.store.topic_mail;
        mail.missed_since(&self.mesh, &peer.id).await.expect("readable")
    }

    async fn had(&self, peer: &Peer, position: i64) {
        let had = Confirm::PostsUpTo { member: peer.id.clone(), position };
        self.store.mail.confirm(T0, &[had]).await.expect("written");
    }

    async fn roster(&self, topic: &TopicId) -> (i64, Vec<MemberId>) {
        let roster = self.store.topic_mail.roster(&self.mesh, topic).await.expect("readable");
        let roster = roster.expect("a topic");
        let mut members: Vec<MemberId> = roster.members.into_keys().collect();
        members.sort();
        (roster.version, members)
    }
}

pub(crate) async fn a_post_is_in_the_history_and_has_its_place_and_one_audit_row(store: Stores) {
    let here = Fixture::new(store).await;
    let topic = here.topic("deploys").await;
    let mut first = here.post(&here.owner, &topic);
    first.envelope.reply_to_id = Some("no post of this topic".to_owned());
    let seq = here.send(T0, &first).await;
    let mut second = here.post(&here.owner, &topic);
    second.envelope.reply_to_id = Some(first.id.to_string());
    here.send(at(1), &second).await;

    let history = here.store.topics.history(&topic, None, 10).await.expect("readable");
    let [newer, older] = &history[..] else { panic!("two posts: {history:?}") };
    assert_eq!((&newer.id, &older.id), (&second.id, &first.id));
    assert_eq!((&newer.reply_to_id, &older.reply_to_id), (&Some(first.id.clone()), &None));
    assert_eq!((&older.nonce, &older.ciphertext), (&first.nonce, &first.ciphertext));
    assert_eq!((&older.sender, &older.sender_key), (&here.owner.id, &here.owner.key));
    assert_eq!((older.created_at, older.body_version), (T0, 1));

    // What is said is there once: the row that has the place holds nothing of it.
    let placed = here.store.mail.multicasts_after(&here.mesh, 0, 10).await.expect("readable");
    assert_eq!(placed[0].seq, seq);
    assert!(placed.iter().all(|row| row.ciphertext.is_empty() && row.nonce.is_empty()));
    let audit = here.audit().await;
    let sent: Vec<_> = audit.iter().filter(|row| row.event_type == "message_sent").collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].id, seq, "the seq is the audit row's id");
}

pub(crate) async fn posts_and_multicasts_have_one_order(store: Stores) {
    let here = Fixture::new(store).await;
    let topic = here.topic("t").await;
    let batch = [
        here.post(&here.owner, &topic),
        here.direct(&here.owner, &here.owner.key),
        here.multicast(&here.owner),
        here.post(&here.owner, &topic),
    ];
    let accepted = here.store.envelopes.accept(T0, &batch).await.expect("good envelopes");
    let mut last = 0;
    for (envelope, accepted) in batch.iter().zip(&accepted) {
        let Accepted::New { seq, previous_multicast, roster, .. } = accepted else {
            panic!("{accepted:?}")
        };
        let is_post = matches!(envelope.reach, Reach::Topic(_));
        assert_eq!(*roster > 0, is_post, "posts alone have a roster");
        if envelope.reach.is_many() {
            assert_eq!(*previous_multicast, last);
            last = *seq;
        }
    }
    let next = here.multicast(&here.owner);
    let accepted = here.store.envelopes.accept(T0, &[next]).await.expect("a good envelope");
    let Accepted::New { previous_multicast, .. } = accepted[0] else { panic!("{accepted:?}") };
    assert_eq!(previous_multicast, last, "also from one batch to the next");
}

pub(crate) async fn concurrent_posts_make_one_order(store: Stores) {
    let here = Fixture::new(store).await;
    let topic = here.topic("t").await;
    let batches = (0..8).map(|_| {
        let batch: Vec<_> = (0..5).map(|_| here.post(&here.owner, &topic)).collect();
        let envelopes = here.store.envelopes.clone();
        async move { envelopes.accept(T0, &batch).await.expect("good posts") }
    });
    let mut links = Vec::new();
    for accepted in join_all(batches).await.into_iter().flatten() {
        let Accepted::New { seq, previous_multicast, .. } = accepted else { panic!("new") };
        links.push((previous_multicast, seq));
    }
    links.sort_unstable();
    let previous: Vec<i64> = links.iter().map(|(previous, _)| *previous).collect();
    let mut expected = vec![0];
    expected.extend(links[..links.len() - 1].iter().map(|(_, seq)| *seq));
    assert_eq!(previous, expected);
    here.audit().await;
}

pub(crate) async fn a_repeated_post_is_a_duplicate(store: Stores) {
    let here = Fixture::new(store).await;
    let topic = here.topic("t").await;
    let mut post = here.post(&here.owner, &topic);
    post.envelope.client_message_id = Some("mine".to_owned());
    here.send(T0, &post).await;
    let mut again = here.post(&here.owner, &topic);
    again.envelope.client_message_id = Some("mine".to_owned());
    let twice = [again.clone(), again];
    let accepted = here.store.envelopes.accept(T0, &twice).await.expect("known");
    assert_eq!(accepted, vec![Accepted::Duplicate { id: post.id.clone() }; 2]);
    let history = here.store.topics.history(&topic, None, 10).await.expect("readable");
    assert_eq!(history.len(), 1);
}

pub(crate) async fn a_post_to_another_meshs_topic_is_refused_whole(store: Stores) {
    let here = Fixture::new(store).await;
    let other = here.another().await;
    let theirs = other.topic("t").await;
    let mine = here.topic("t").await;
    let batch = [here.post(&here.owner, &mine), here.post(&here.owner, &theirs)];
    here.store.envelopes.accept(T0, &batch).await.expect_err("it is not of the mesh");
    for topic in [&mine, &theirs] {
        let history = here.store.topics.history(topic, None, 10).await.expect("readable");
        assert!(history.is_empty());
    }
}

pub(crate) async fn a_member_reads_what_came_since_it_joined(store: Stores) {
    let here = Fixture::new(store).await;
    let (one, two) = (here.topic("one").await, here.topic("two").await);
    let bob = here.member("bob").await;
    here.posts(&here.owner, &one).await;
    assert_eq!(here.joins_topic(&bob, &one).await, Joining::Joined);
    assert_eq!(here.joins_topic(&bob, &one).await, Joining::Already);
    assert_eq!(here.missed(&bob).await, None, "nothing older");
    let a = here.posts(&here.owner, &one).await;
    here.posts(&here.owner, &two).await;
    let b = here.posts(&here.owner, &one).await;
    here.joins_topic(&bob, &two).await;
    let c = here.posts(&here.owner, &two).await;
    let d = here.posts(&bob, &one).await;
    assert_eq!(here.reads(&bob, 0).await, [a, b, c, d]);
    assert_eq!(here.reads(&bob, a).await, [b, c, d]);
    assert!(here.missed(&bob).await.is_some_and(|since| since < a));

    here.had(&bob, b).await;
    assert_eq!(here.missed(&bob).await.map(|since| since >= b && since < c), Some(true));
    here.had(&bob, a).await;
    assert!(here.missed(&bob).await.is_some_and(|since| since >= b), "only forward");
    here.had(&bob, d).await;
    assert_eq!(here.missed(&bob).await, None);
    assert_eq!(here.reads(&bob, 0).await, [a, b, c, d], "another connection reads them too");

    assert!(here.store.topics.leave(T0, &here.author(&bob), &one).await.expect("done"));
    assert!(!here.store.topics.leave(T0, &here.author(&bob), &one).await.expect("done"));
    assert_eq!(here.reads(&bob, 0).await, [c], "who left reads no more");
}

pub(crate) async fn positions_in_topics_go_back_with_the_store(store: Stores) {
    let here = Fixture::new(store).await;
    let topic = here.topic("t").await;
    let bob = here.member("bob").await;
    here.joins_topic(&bob, &topic).await;
    let first = here.posts(&here.owner, &topic).await;
    let second = here.posts(&here.owner, &topic).await;
    here.had(&bob, second + 100).await;
    assert_eq!(here.missed(&bob).await, None);
    here.store.mail.rewind(&here.mesh, second, first).await.expect("written");
    assert_eq!(here.missed(&bob).await, Some(first));
}

pub(crate) async fn a_topic_that_is_not_public_is_joined_by_invitation(store: Stores) {
    let here = Fixture::new(store).await;
    let bob = here.member("bob").await;
    for visibility in [Visibility::Private, Visibility::Dm] {
        let name = visibility.as_str();
        let topic = here.topic_as(&here.owner, name, visibility).await.id;
        let topics = &here.store.topics;
        let seen = async || topics.list(&here.mesh, &bob.id, None, 10).await.expect("readable");
        assert!(seen().await.iter().all(|topic| topic.name != name));
        assert_eq!(here.joins_topic(&bob, &topic).await, Joining::NotInvited);
        let again = here.topic_as(&bob, name, visibility).await;
        assert_eq!((again.is_new, again.joining), (false, Joining::NotInvited));
        let owner = here.author(&here.owner);
        topics.invite(T0, &owner, &topic, &bob.id).await.expect("written");
        assert_eq!(here.joins_topic(&bob, &topic).await, Joining::Joined);
        assert!(seen().await.iter().any(|topic| topic.name == name && topic.members == 2));
        topics.leave(T0, &here.author(&bob), &topic).await.expect("written");
        assert_eq!(here.joins_topic(&bob, &topic).await, Joining::NotInvited, "it counts once");
    }
}

pub(crate) async fn a_topic_is_made_once_and_found_by_name_and_id(store: Stores) {
    let here = Fixture::new(store).await;
    let bob = here.member("bob").await;
    let made = here.topic_as(&here.owner, "deploys", Visibility::Public).await;
    assert_eq!((made.is_new, made.key_maker), (true, Some(KeyMaker::Client)));
    let found = here.topic_as(&bob, "deploys", Visibility::Private).await;
    assert_eq!((found.is_new, found.joining), (false, Joining::Joined));
    assert_eq!((&found.id, found.visibility), (&made.id, Visibility::Public));
    let topics = &here.store.topics;
    for named in ["deploys", made.id.as_str()] {
        let topic = topics.find(&here.mesh, named, &bob.id).await.expect("readable");
        let topic = topic.expect("it is there");
        assert_eq!((&topic.id, topic.role), (&made.id, Some(TopicRole::Lead)));
        let mail = &here.store.topic_mail;
        let addressed = mail.addressed(&here.mesh, named, &bob.id).await.expect("readable");
        let addressed = addressed.expect("it is there");
        assert!(addressed.is_member && addressed.is_public && addressed.name == "deploys");
        let elsewhere = here.another().await;
        let found = topics.find(&elsewhere.mesh, named, &bob.id).await.expect("readable");
        assert_eq!(found, None, "each mesh has its own");
    }
    let members = topics.members(&made.id, None, 10).await.expect("readable");
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["bob", "owner"], "by name");
    let after = (members[0].name.clone(), members[0].id.clone());
    let rest = topics.members(&made.id, Some(&after), 10).await.expect("readable");
    assert_eq!(rest, members[1..]);
    topics.mark_read(at(5), &made.id, &bob.id).await.expect("written");
    let members = topics.members(&made.id, None, 1).await.expect("readable");
    assert_eq!(members[0].last_read_at, Some(at(5)));
    let events: Vec<_> = here.audit().await.into_iter().map(|row| row.event_type).collect();
    for event in ["topic_created", "topic_joined"] {
        assert_eq!(events.iter().filter(|name| *name == event).count(), 1, "{events:?}");
    }
}

pub(crate) async fn a_history_is_read_page_by_page(store: Stores) {
    let here = Fixture::new(store).await;
    let (topic, other) = (here.topic("t").await, here.topic("other").await);
    // Some of one instant, and a clock that goes back: they are as they were committed.
    let mut ids = Vec::new();
    for number in 0..7 {
        let post = here.post(&here.owner, &topic);
        here.send(at(60 - number / 3), &post).await;
        ids.push(post.envelope.id);
    }
    let stray = here.post(&here.owner, &other);
    here.send(T0, &stray).await;
    ids.reverse();
    let (mut read, mut before) = (Vec::new(), None::<MessageId>);
    loop {
        let page = here.store.topics.history(&topic, before.as_ref(), 3).await.expect("readable");
        let Some(last) = page.last() else { break };
        before = Some(last.id.clone());
        read.extend(page.into_iter().map(|post| post.id));
    }
    assert_eq!(read, ids);
    for unknown in [&stray.id, &MessageId::from("unknown")] {
        let page = here.store.topics.history(&topic, Some(unknown), 3).await.expect("readable");
        assert!(page.is_empty(), "before what is not of the topic there is nothing");
    }
}

pub(crate) async fn a_roster_has_a_version_that_grows_with_every_change(store: Stores) {
    let here = Fixture::new(store).await;
    let topic = here.topic("t").await;
    let bob = here.member("bob").await;
    let (before, members) = here.roster(&topic).await;
    assert_eq!(members, std::slice::from_ref(&here.owner.id));
    let seq = here.posts(&here.owner, &topic).await;
    here.joins_topic(&bob, &topic).await;
    let (joined, members) = here.roster(&topic).await;
    assert!(joined > before && members.len() == 2);
    let roster = here.store.topic_mail.roster(&here.mesh, &topic).await.expect("readable");
    let roster = roster.expect("a topic");
    assert!(!roster.includes(&bob.id, seq), "what was said before is not for him");
    let post = here.post(&here.owner, &topic);
    let accepted = here.store.envelopes.accept(T0, std::slice::from_ref(&post)).await;
    let accepted = accepted.expect("a good post");
    let [Accepted::New { seq, roster: version, .. }] = accepted[..] else { panic!("new") };
    assert_eq!(version, joined, "as it was at the commit");
    assert!(roster.includes(&bob.id, seq));
    here.store.topics.leave(T0, &here.author(&bob), &topic).await.expect("written");
    assert!(here.roster(&topic).await.0 > joined);
}

pub(crate) async fn old_posts_are_deleted_with_their_history(store: Stores) {
    let here = Fixture::new(store).await;
    let topic = here.topic("t").await;
    // Long before everything else: all meshes are looked at.
    let long_ago = T0.plus_ms(-400 * 24 * 3_600_000);
    for seconds in 0..3 {
        here.send(long_ago.plus_ms(1000 * seconds), &here.post(&here.owner, &topic)).await;
    }
    let kept = here.post(&here.owner, &topic);
    here.send(T0, &kept).await;
    let before = T0.plus_ms(-365 * 24 * 3_600_000);
    let mut gone = 0;
    loop {
        let mail = &here.store.topic_mail;
        match mail.expire_posts(before, 2).await.expect("written") {
            0 => break,
            some => gone += some,
        }
    }
    assert!(gone >= 3);
    let history = here.store.topics.history(&topic, None, 10).await.expect("readable");
    assert_eq!(history.iter().map(|post| &post.id).collect::<Vec<_>>(), [&kept.id]);
}

pub(crate) async fn programs_see_topics_by_name_and_posts_by_their_place(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let open = here.topic("open").await;
    let closed = here.topic_as(&ada, "closed", Visibility::Private).await.id;
    let calls = &store.topic_calls;
    let named = async |name: &str, member: Option<&MemberId>| {
        calls.named(&here.mesh, name, member).await.expect("readable")
    };
    assert_eq!(named("nothing", None).await, None);
    assert_eq!(named("ope", Some(&here.owner.id)).await, None);
    let own = named("open", Some(&here.owner.id)).await.expect("a topic");
    assert!(own.is_member && own.is_seen());
    assert_eq!(own.key_pubkey, Some("ab".repeat(32)));
    let held = own.held.expect("a key");
    assert_eq!((&*held.encrypted_key, &*held.nonce, held.created_at), ("a2V5", "bm9uY2U=", T0));
    let other = named("open", Some(&bob.id)).await.expect("a topic");
    assert!(!other.is_member && other.is_seen() && other.held.is_none());
    assert!(!named("closed", Some(&bob.id)).await.expect("a topic").is_seen());
    assert!(!named("closed", None).await.expect("a topic").is_seen());

    let first = here.post(&here.owner, &open);
    let seq = here.send(at(5), &first).await;
    let second = here.post(&here.owner, &open);
    let newest = here.send(at(6), &second).await;
    assert!(calls.is_post(&open, &first.id).await.expect("readable"));
    assert!(!calls.is_post(&closed, &first.id).await.expect("readable"));
    here.joins_topic(&bob, &open).await;
    let seen = async |member: Option<&MemberId>, limit| {
        let found = calls.seen(&here.mesh, member, limit, 10).await.expect("readable");
        found.into_iter().map(|topic| (topic.name, topic.unread)).collect::<Vec<_>>()
    };
    let of = |name: &str, unread| (name.to_owned(), unread);
    assert_eq!(seen(Some(&bob.id), 10).await, [of("open", 2)]);
    assert_eq!(seen(Some(&ada.id), 10).await, [of("closed", 0), of("open", 0)]);
    assert_eq!(seen(Some(&here.owner.id), 10).await, [of("open", 0)], "its own are read");
    assert_eq!(seen(None, 10).await, [of("open", 0)]);
    assert_eq!(seen(Some(&ada.id), 1).await, [of("closed", 0)]);
    store.topics.mark_read(at(5), &open, &bob.id).await.expect("written");
    assert_eq!(seen(Some(&bob.id), 10).await, [of("open", 1)]);

    let since = async |after| {
        let found = calls.posts_since(&open, after, 10).await.expect("readable");
        found.into_iter().map(|(seq, post)| (seq, post.id)).collect::<Vec<_>>()
    };
    assert_eq!(since(0).await, [(seq, first.id.clone()), (newest, second.id.clone())]);
    assert_eq!(since(seq).await, [(newest, second.id.clone())]);
    let watched = async |topic: &TopicId, member: Option<&MemberId>| {
        calls.watched(topic, "no key", member).await.expect("readable")
    };
    assert_eq!(watched(&open, Some(&bob.id)).await, Some(newest));
    assert_eq!(watched(&open, None).await, Some(newest));
    assert_eq!(watched(&open, Some(&ada.id)).await, None, "not in it");
    assert_eq!(watched(&closed, Some(&ada.id)).await, Some(0));
    assert_eq!(watched(&closed, None).await, None);
    seals_are_one_for_each(&here, &bob, &open).await;
    store.bans.ban(at(7), &here.about(&bob)).await.expect("a member");
    assert_eq!(watched(&open, Some(&bob.id)).await, None);
    store.meshes.archive(at(8), &here.mesh, None).await.expect("written");
    assert_eq!(watched(&open, Some(&here.owner.id)).await, None);
}

async fn seals_are_one_for_each(here: &Fixture, bob: &Peer, topic: &TopicId) {
    let calls = &here.store.topic_calls;
    let unsealed = async || {
        let found = calls.unsealed(topic, 10).await.expect("readable");
        found.into_iter().map(|one| (one.member, one.name)).collect::<Vec<_>>()
    };
    assert_eq!(unsealed().await, [(bob.id.clone(), "bob".to_owned())]);
    let seal = async |by: &Peer, member: &MemberId| {
        let seal = TopicSeal {
            member: member.clone(),
            encrypted_key: "bmV3".to_owned(),
            nonce: "bm9uY2U=".to_owned(),
        };
        calls.seal(T0, &here.author(by), topic, &seal).await.expect("written")
    };
    assert_eq!(seal(bob, &bob.id).await, Sealing::NoKey);
    assert_eq!(seal(&here.owner, &MemberId::from("nobody")).await, Sealing::NotInTopic);
    assert_eq!(seal(&here.owner, &bob.id).await, Sealing::Sealed);
    assert_eq!(seal(&here.owner, &bob.id).await, Sealing::Already);
    assert_eq!(seal(bob, &bob.id).await, Sealing::Sealed, "its own");
    assert!(unsealed().await.is_empty());
    let own = TopicSeal {
        member: bob.id.clone(),
        encrypted_key: "eA==".to_owned(),
        nonce: "eA==".to_owned(),
    };
    let claimed = calls.claim(T0, &here.author(bob), topic, &"cd".repeat(32), &own).await;
    assert_eq!(claimed.expect("written"), Claiming::Already("ab".repeat(32)));
}
