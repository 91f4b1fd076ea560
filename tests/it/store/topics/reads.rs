//! What members see of topics all at once.

use claudemesh_broker::id::MemberId;
use claudemesh_broker::protocol::Visibility;
use claudemesh_broker::store::{AskedMentions, AskedPosts, NewEnvelope, Reach, Stores};

use crate::store::fixture::{Fixture, T0, at};

fn mentioning(mut post: NewEnvelope, member: &MemberId, ciphertext: &str) -> NewEnvelope {
    post.envelope.ciphertext = ciphertext.to_owned();
    if let Reach::Topic(post) = &mut post.reach {
        post.mentions.push(member.clone());
    }
    post
}

pub(crate) async fn a_member_sees_what_is_said_in_its_topics_and_who_mentions_it(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let open = here.topic("open").await;
    here.topic_as(&ada, "closed", Visibility::Private).await;
    here.joins_topic(&bob, &open).await;
    let first = mentioning(here.post(&here.owner, &open), &bob.id, "Zmlyc3Q=");
    here.send(at(1), &first).await;
    let second = mentioning(here.post(&here.owner, &open), &bob.id, "c2Vjb25k");
    here.send(at(2), &second).await;
    here.send(at(3), &here.post(&bob, &open)).await;

    let reads = &store.topic_reads;
    let mentions = async |members: &[MemberId], since, unread_only| {
        let ask = AskedMentions { since: at(since), unread_only, archived_too: false, limit: 10 };
        let found = reads.mentions(members, &ask).await.expect("readable");
        found.into_iter().map(|mention| (mention.post.id.clone(), mention)).collect::<Vec<_>>()
    };
    let both = [bob.id.clone(), ada.id.clone()];
    let all = mentions(&both, 0, true).await;
    let [(newest, mention), (oldest, _)] = &all[..] else { panic!("{all:?}") };
    assert_eq!((newest, oldest), (&second.id, &first.id));
    assert_eq!((&*mention.kind, mention.read_at), ("mention", None));
    assert_eq!((&mention.sender_key, &*mention.post.sender_name), (&here.owner.key, "owner"));
    assert_eq!((&*mention.post.ciphertext, mention.post.created_at), ("c2Vjb25k", at(2)));
    assert_eq!((&mention.post.topic, &*mention.post.topic_name), (&open, "open"));
    assert_eq!(mentions(&both, 1, true).await.len(), 1);
    assert!(mentions(std::slice::from_ref(&ada.id), 0, true).await.is_empty());
    // Another's mentions are not one's own to read.
    let ids = [mention.id.clone()];
    reads.mark_mentions(at(5), &ada.id, &ids).await.expect("written");
    assert_eq!(mentions(&both, 0, true).await.len(), 2);
    reads.mark_mentions(at(5), &bob.id, &ids).await.expect("written");
    assert_eq!(mentions(&both, 0, true).await.len(), 1);
    assert_eq!(mentions(&both, 0, false).await[0].1.read_at, Some(at(5)));
    reads.mark_mentions_until(at(6), &bob.id, at(1)).await.expect("written");
    assert!(mentions(&both, 0, true).await.is_empty());

    let topics = async |member: &MemberId| {
        let found = reads.topics(std::slice::from_ref(member), 10, 10).await.expect("readable");
        let shown = |topic: &claudemesh_broker::store::MembersTopic| {
            (topic.name.clone(), topic.unread, topic.last_post_at)
        };
        found.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(topics(&bob.id).await, [("open".to_owned(), 2, Some(at(3)))]);
    let seen = [("closed".to_owned(), 0, None), ("open".to_owned(), 0, Some(at(3)))];
    assert_eq!(topics(&ada.id).await, seen);

    let posts = async |members: &[MemberId], own_too, plain_chars, limit| {
        let ask = AskedPosts { since: T0, own_too, plain_chars, limit };
        let found = reads.posts(members, &ask).await.expect("readable");
        found.into_iter().map(|post| (post.id, post.ciphertext)).collect::<Vec<_>>()
    };
    let said = posts(&both, false, None, 10).await;
    let expected = [(second.id.clone(), "c2Vjb25k"), (first.id.clone(), "Zmlyc3Q=")];
    assert_eq!(said, expected.clone().map(|(id, text)| (id, text.to_owned())));
    assert_eq!(posts(&both, true, None, 10).await.len(), 3);
    assert_eq!(posts(&both, false, Some(4), 1).await, [(second.id.clone(), "c2Vj".to_owned())]);
    assert!(posts(std::slice::from_ref(&ada.id), true, None, 10).await.is_empty(), "not in it");
    let membership = store.workspaces.memberships(&bob.id).await.expect("readable");
    assert_eq!((membership[0].topics, membership[0].unread_mentions), (1, 0));

    // Of one instant: as they were committed.
    let mut newest_first = Vec::new();
    for _ in 0..4 {
        let post = mentioning(here.post(&here.owner, &open), &bob.id, "c2FtZQ==");
        here.send(at(9), &post).await;
        newest_first.insert(0, post.envelope.id);
    }
    let said = posts(std::slice::from_ref(&bob.id), false, None, 4).await;
    assert!(said.iter().map(|(id, _)| id).eq(&newest_first), "{said:?}");
    let named = mentions(std::slice::from_ref(&bob.id), 8, true).await;
    assert!(named.iter().map(|(id, _)| id).eq(&newest_first), "{named:?}");
}
