use super::turn::Turn;
use super::*;
use crate::limits;
use crate::protocol::Status;

const T0: Timestamp = Timestamp::from_ms(1_800_000_000_000);

fn at(ms: i64) -> Timestamp {
    T0.plus_ms(ms)
}

fn message(id: &str, priority: Priority) -> Incoming {
    Incoming {
        message_id: MessageId::from(id),
        client_message_id: None,
        sender_key: Key::from("ab".repeat(32)),
        sender_session_key: None,
        sender_name: "bob".to_owned(),
        sender_session_name: None,
        mesh: "team".to_owned(),
        target: None,
        to_many: Some(false),
        for_session: false,
        priority,
        subtype: None,
        sent_at: T0,
        expires_at: None,
        thread_id: None,
        reply_to_id: None,
        expects_reply: None,
        hop: Some(0),
        newer_from_sender: None,
        is_sealed: None,
        redelivered: false,
        seq: None,
        body: format!("body of {id}"),
    }
}

struct Place {
    spool: Spool,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(&folder.path().join("s/spool.db")).await.expect("opened");
        Self { spool, folder }
    }

    /// What another program sees that has the file open.
    async fn other(&self) -> Spool {
        Spool::open(&self.folder.path().join("s/spool.db")).await.expect("opened")
    }

    async fn keep(&self, ids: &[&str], priority: Priority) {
        for id in ids {
            let stored = self.spool.store(&message(id, priority), T0).await.expect("stored");
            assert_eq!(stored, Stored::New);
        }
    }

    async fn waiting(&self, now: Timestamp) -> Vec<i64> {
        let waiting = self.spool.waiting(Wanted::default(), 1000, now).await.expect("read");
        waiting.iter().map(|letter| letter.id).collect()
    }

    async fn unsurfaced(&self) -> Vec<String> {
        let ids = self.spool.unsurfaced(100).await.expect("read");
        ids.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn a_message_that_comes_again_is_no_second_one() {
    let place = Place::new().await;
    place.keep(&["m1"], Priority::Next).await;
    let store = async |message: &Incoming| place.spool.store(message, T0).await.expect("stored");
    assert_eq!(store(&message("m1", Priority::Next)).await, Stored::Known);
    let named = |id, by: &str| {
        let client_message_id = Some("c1".to_owned());
        let sender_key = Key::from(by);
        Incoming { client_message_id, sender_key, ..message(id, Priority::Next) }
    };
    assert_eq!(store(&named("m2", "bob")).await, Stored::New);
    assert_eq!(store(&named("m3", "bob")).await, Stored::Known, "sent again under another id");
    assert_eq!(store(&named("m2", "bob")).await, Stored::Known);
    assert_eq!(store(&named("m4", "eve")).await, Stored::New, "another sender's own id");
    let ids = place.waiting(T0).await;
    place.spool.seen(&ids, Way::Prompt, T0).await.expect("marked");
    assert_eq!(store(&message("m1", Priority::Next)).await, Stored::Known, "also once seen");
    assert!(place.waiting(at(60_000)).await.is_empty());
}

#[tokio::test]
async fn one_way_at_a_time_holds_a_message_and_the_next_may_have_it_when_that_ends() {
    let place = Place::new().await;
    place.keep(&["m1", "m2"], Priority::Next).await;
    let (spool, hook) = (&place.spool, place.other().await);
    let first = spool.offer(&[1, 2], Way::Channel, at(5_000), T0).await.expect("offered");
    assert_eq!(first, [1, 2]);
    let none = hook.offer(&[1, 2], Way::Prompt, at(9_000), at(4_999)).await.expect("offered");
    assert!(none.is_empty() && place.waiting(at(4_999)).await.is_empty());
    assert_eq!(place.waiting(at(5_000)).await, [1, 2], "no evidence came in time");
    let next = hook.offer(&[1, 2], Way::Prompt, at(9_000), at(5_000)).await.expect("offered");
    assert_eq!(next, [1, 2]);
    // The channel's evidence comes late, and is evidence all the same.
    assert_eq!(spool.seen(&[1], Way::Channel, at(5_001)).await.expect("marked"), [1]);
    assert_eq!(hook.seen(&[1, 2], Way::Prompt, at(5_002)).await.expect("marked"), [2]);
    assert_eq!(place.unsurfaced().await, ["m1", "m2"]);
}

#[tokio::test]
async fn what_was_given_back_waits_at_once_and_a_way_may_ask_for_what_it_never_had() {
    let place = Place::new().await;
    place.keep(&["m1", "m2"], Priority::Next).await;
    let spool = &place.spool;
    spool.offer(&[1], Way::Stop, at(5_000), T0).await.expect("offered");
    spool.give_back(&[1]).await.expect("given back");
    assert_eq!(place.waiting(T0).await, [1, 2]);
    let wanted = Wanted { untried_by: Some(Way::Stop), ..Wanted::default() };
    let letters = spool.waiting(wanted, 10, T0).await.expect("read");
    assert_eq!(letters.iter().map(|letter| letter.id).collect::<Vec<_>>(), [2]);
    let all = spool.waiting(Wanted::default(), 10, T0).await.expect("read");
    assert!(all[0].tried && !all[1].tried);
}

#[tokio::test]
async fn what_was_pushed_can_still_be_pulled_and_nothing_else_that_is_held() {
    let place = Place::new().await;
    place.keep(&["m1", "m2"], Priority::Next).await;
    let spool = &place.spool;
    spool.offer(&[1], Way::Channel, at(5_000), T0).await.expect("offered");
    spool.offer(&[2], Way::Stop, at(5_000), T0).await.expect("offered");
    let wanted = Wanted { pushed_too: true, ..Wanted::default() };
    let letters = spool.waiting(wanted, 10, T0).await.expect("read");
    assert_eq!(letters.iter().map(|letter| letter.id).collect::<Vec<_>>(), [1]);
    for way in [Way::Prompt, Way::Beside] {
        let got = spool.offer(&[1, 2], way, at(9_000), T0).await.expect("offered");
        assert!(got.is_empty(), "{way:?}");
    }
    let pulled = spool.offer(&[1, 2], Way::ToolResult, at(9_000), T0).await.expect("offered");
    assert_eq!(pulled, [1]);
    assert!(spool.waiting(wanted, 10, T0).await.expect("read").is_empty(), "not twice");
}

#[tokio::test]
async fn senders_of_what_is_unread_are_named_once_and_the_newest_first() {
    let place = Place::new().await;
    for (id, name) in [("a", "bob"), ("b", "eve"), ("c", "bob"), ("d", "ada")] {
        let message = Incoming { sender_name: name.to_owned(), ..message(id, Priority::Next) };
        place.spool.store(&message, T0).await.expect("stored");
    }
    assert_eq!(place.spool.senders(2, T0).await.expect("read"), ["ada", "bob"]);
    place.spool.seen(&[4], Way::Prompt, T0).await.expect("marked");
    assert_eq!(place.spool.senders(9, T0).await.expect("read"), ["bob", "eve"]);
}

#[tokio::test]
async fn the_urgent_come_first_and_otherwise_the_order_is_that_of_arrival() {
    let place = Place::new().await;
    place.keep(&["l"], Priority::Low).await;
    place.keep(&["n1", "n2"], Priority::Next).await;
    place.keep(&["u"], Priority::Now).await;
    assert_eq!(place.waiting(T0).await, [4, 2, 3, 1]);
    let wanted = Wanted { urgent_or_before: Some(at(-1)), ..Wanted::default() };
    let urgent = place.spool.waiting(wanted, 10, T0).await.expect("read");
    assert_eq!(urgent.iter().map(|letter| letter.id).collect::<Vec<_>>(), [4]);
    let wanted = Wanted { urgent_or_before: Some(T0), ..Wanted::default() };
    let long_held = place.spool.waiting(wanted, 2, T0).await.expect("read");
    assert_eq!(long_held.iter().map(|letter| letter.id).collect::<Vec<_>>(), [4, 2]);
}

#[tokio::test]
async fn what_expired_or_was_withdrawn_is_not_shown_and_what_was_seen_stays_so() {
    let place = Place::new().await;
    let spool = &place.spool;
    let dated = Incoming { expires_at: Some(at(1_000)), ..message("m1", Priority::Next) };
    assert_eq!(spool.store(&dated, T0).await.expect("stored"), Stored::New);
    place.keep(&["m2", "m3"], Priority::Next).await;
    assert_eq!(place.waiting(at(999)).await, [1, 2, 3]);
    assert_eq!(place.waiting(at(1_000)).await, [2, 3]);
    assert!(spool.offer(&[1], Way::Prompt, at(9_000), at(1_000)).await.expect("read").is_empty());
    assert_eq!(spool.counts(at(1_000)).await.expect("read").unread, 2);
    spool.seen(&[3], Way::Prompt, at(1_000)).await.expect("marked");
    let ids = ["m2", "m3", "m9"].map(MessageId::from);
    assert_eq!(spool.withdrawn(&ids).await.expect("withdrawn"), 1);
    assert!(place.waiting(at(1_000)).await.is_empty());
    assert_eq!(place.unsurfaced().await, ["m3"]);
    // One that comes again after all that is still no new one.
    let again = spool.store(&message("m2", Priority::Next), at(2_000)).await.expect("stored");
    assert_eq!(again, Stored::Known);
    assert_eq!(spool.store(&dated, at(2_000)).await.expect("stored"), Stored::Known);
    let texts: Vec<String> =
        spool.find(&ids).await.expect("read").into_iter().map(|l| l.message.body).collect();
    assert_eq!(texts, ["", "body of m3"], "what was taken back is not kept");
}

#[tokio::test]
async fn the_broker_is_told_once_also_after_a_restart() {
    let place = Place::new().await;
    place.keep(&["m1", "m2"], Priority::Next).await;
    place.spool.seen(&[1, 2], Way::Stop, T0).await.expect("marked");
    place.spool.told(&[MessageId::from("m1")], T0).await.expect("told");
    place.spool.close().await;
    let again = place.other().await;
    assert_eq!(again.unsurfaced(10).await.expect("read"), [MessageId::from("m2")]);
    assert_eq!(again.counts(T0).await.expect("read").untold, 1);
    again.told(&[MessageId::from("m2")], T0).await.expect("told");
    assert_eq!(again.counts(T0).await.expect("read"), Counts::default());
}

#[tokio::test]
async fn of_messages_to_many_none_is_told_before_an_earlier_one_was_seen() {
    let place = Place::new().await;
    for (id, to_many) in [("g1", Some(true)), ("d1", Some(false)), ("g2", None), ("g3", None)] {
        let message = Incoming { to_many, ..message(id, Priority::Next) };
        place.spool.store(&message, T0).await.expect("stored");
    }
    place.spool.seen(&[2, 3], Way::Prompt, T0).await.expect("marked");
    assert_eq!(place.unsurfaced().await, ["d1"], "g2 would speak for g1");
    place.spool.seen(&[1], Way::Prompt, T0).await.expect("marked");
    assert_eq!(place.unsurfaced().await, ["g1", "d1", "g2"]);
}

#[tokio::test]
async fn what_its_sender_superseded_is_not_shown_and_another_senders_is() {
    let place = Place::new().await;
    let named = |id, by: &str| {
        let client_message_id = Some("c1".to_owned());
        let sender_key = Key::from(by);
        Incoming { client_message_id, sender_key, ..message(id, Priority::Next) }
    };
    for message in [named("m1", "bob"), named("m2", "eve")] {
        place.spool.store(&message, T0).await.expect("stored");
    }
    let drop =
        async |by, earlier| place.spool.superseded(&named("m3", by), earlier).await.expect("asked");
    assert_eq!(drop("bob", "c1").await, 1);
    assert_eq!(drop("bob", "c1").await, 0, "once");
    assert_eq!(drop("bob", "c9").await, 0, "nobody knows it");
    assert_eq!(place.waiting(T0).await, [2]);
    place.spool.seen(&[2], Way::Prompt, T0).await.expect("marked");
    assert_eq!(drop("eve", "c1").await, 0, "it was seen");
}

#[tokio::test]
async fn a_full_spool_takes_nothing_more_and_says_so() {
    let place = Place::new().await;
    let spool = &place.spool;
    let half = usize::try_from(limits::SPOOL_BYTES_MAX / 2).expect("fits");
    let large = |id| Incoming { body: "x".repeat(half), ..message(id, Priority::Next) };
    assert_eq!(spool.store(&large("a"), T0).await.expect("stored"), Stored::New);
    assert_eq!(spool.store(&large("b"), T0).await.expect("stored"), Stored::New);
    let small = message("c", Priority::Now);
    assert_eq!(spool.store(&small, T0).await.expect("refused"), Stored::Full);
    assert_eq!(spool.store(&large("a"), T0).await.expect("known"), Stored::Known);
    spool.seen(&[1], Way::Prompt, T0).await.expect("marked");
    assert_eq!(spool.store(&small, T0).await.expect("stored"), Stored::New);
    let fill = "with recursive n (i) as (select 1 union all select i + 1 from n where i < ?1) \
        insert into message (identity, message_id, priority, content, bytes, expects_reply, \
        received_at) select i, i, 1, '{}', 0, 0, 0 from n";
    sqlx::query(fill).bind(limits::SPOOL_WAITING_MAX).execute(&spool.pool).await.expect("filled");
    let refused = spool.store(&message("d", Priority::Now), T0).await.expect("refused");
    assert_eq!(refused, Stored::Full, "by their number, too");
}

#[tokio::test]
async fn what_is_done_is_forgotten_in_the_end_and_what_waits_never() {
    let place = Place::new().await;
    let spool = &place.spool;
    place.keep(&["first"], Priority::Low).await;
    let fill = "with recursive n (i) as (select 1 union all select i + 1 from n where i < ?1) \
        insert into message (identity, message_id, priority, content, bytes, expects_reply, \
        received_at, state) select 'm' || i, 'm' || i, 1, '{\"body\":\"x\"}', 1, 0, 0, 'seen' \
        from n";
    let more = limits::SPOOL_DONE_MAX + 50;
    sqlx::query(fill).bind(more).execute(&spool.pool).await.expect("filled");
    place.keep(&["last"], Priority::Low).await;
    let count = async |condition: &'static str| -> i64 {
        sqlx::query_scalar(condition).fetch_one(&spool.pool).await.expect("counted")
    };
    let done = count("select count(*) from message where state = 'seen'").await;
    assert_eq!(done, limits::SPOOL_DONE_MAX);
    assert_eq!(count("select count(*) from message where message_id = 'm50'").await, 0);
    let readable = "select count(*) from message where state = 'seen' and bytes > 0";
    assert_eq!(count(readable).await, limits::SPOOL_READABLE_MAX);
    assert_eq!(place.waiting(T0).await.len(), 2);
}

#[tokio::test]
async fn many_ways_at_once_share_the_messages_without_doubling_one() {
    let place = Place::new().await;
    let ids: Vec<String> = (0..60).map(|i| format!("m{i}")).collect();
    place.keep(&ids.iter().map(String::as_str).collect::<Vec<_>>(), Priority::Next).await;
    let mut tasks = Vec::new();
    for way in [Way::Prompt, Way::Tools, Way::Stop, Way::ToolResult] {
        let spool = place.other().await;
        tasks.push(tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                let waiting = spool.waiting(Wanted::default(), 7, T0).await.expect("read");
                if waiting.is_empty() {
                    return got;
                }
                let ids: Vec<i64> = waiting.iter().map(|letter| letter.id).collect();
                got.extend(spool.offer(&ids, way, at(1), T0).await.expect("offered"));
            }
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("ended"));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=60).collect::<Vec<i64>>());
}

#[tokio::test]
async fn those_who_wait_for_an_answer_are_named_until_they_have_it() {
    let place = Place::new().await;
    for id in ["a", "b", "c"] {
        let asks = Incoming { expects_reply: Some(id != "b"), ..message(id, Priority::Next) };
        place.spool.store(&asks, T0).await.expect("stored");
    }
    let open = async || {
        let letters = place.spool.unanswered(10).await.expect("read");
        letters.iter().map(|letter| letter.message.message_id.to_string()).collect::<Vec<_>>()
    };
    assert!(open().await.is_empty(), "not before they were seen");
    place.spool.seen(&[1, 2, 3], Way::Stop, T0).await.expect("marked");
    assert_eq!(open().await, ["a", "c"]);
    place.spool.answered(&MessageId::from("a"), T0).await.expect("answered");
    assert_eq!(open().await, ["c"]);
}

#[tokio::test]
async fn what_a_session_left_behind_goes_to_the_next_but_for_what_only_it_may_have() {
    let (old, new) = (Place::new().await, Place::new().await);
    old.keep(&["m1", "m2", "m3"], Priority::Next).await;
    let own = Incoming { for_session: true, ..message("own", Priority::Now) };
    old.spool.store(&own, T0).await.expect("stored");
    old.spool.seen(&[1], Way::Stop, T0).await.expect("marked");
    old.spool.offer(&[2], Way::Stop, at(1), T0).await.expect("offered");
    assert_eq!(new.spool.take_over(&old.spool, at(2)).await.expect("taken"), 2);
    assert_eq!(new.spool.take_over(&old.spool, at(2)).await.expect("taken"), 0);
    let letters = new.spool.waiting(Wanted::default(), 9, at(2)).await.expect("read");
    let got = letters
        .iter()
        .map(|letter| (letter.message.message_id.as_str(), letter.message.redelivered));
    assert_eq!(got.collect::<Vec<_>>(), [("m2", true), ("m3", false)]);
    assert_eq!(old.waiting(at(2)).await, [4], "its own stays");
}

#[tokio::test]
async fn a_turns_end_is_put_off_twice_for_each_prompt() {
    let place = Place::new().await;
    let spool = &place.spool;
    let may = async |prompt: Option<&'static str>, again| {
        spool.may_continue(prompt, again).await.expect("asked")
    };
    spool.turn_begins(Some("p1"), T0).await.expect("written");
    assert!(may(Some("p1"), false).await && may(Some("p1"), true).await);
    assert!(!may(Some("p1"), true).await && !may(Some("p1"), false).await);
    assert!(may(Some("p2"), false).await, "a prompt that only the stop names is a new one");
    spool.turn_begins(None, T0).await.expect("written");
    assert!(may(None, false).await && may(None, true).await);
    assert!(!may(None, true).await, "hosts that name none are bounded, too");
    assert!(may(None, false).await, "and told by the host where a turn begins");
}

#[tokio::test]
async fn the_hosts_work_is_told_with_since_when() {
    let place = Place::new().await;
    let (spool, hook) = (&place.spool, place.other().await);
    let before = spool.version().await.expect("read");
    let turn = async || spool.turn().await.expect("read");
    assert_eq!(turn().await.status, Status::Idle);
    hook.turn_begins(Some("p1"), at(1)).await.expect("written");
    assert_ne!(spool.version().await.expect("read"), before, "another program wrote");
    hook.works(Some("p1"), at(2)).await.expect("written");
    let expected = Turn { status: Status::Working, since: at(1), prompt: Some("p1".to_owned()) };
    assert_eq!(turn().await, expected);
    hook.idles(at(3)).await.expect("written");
    hook.idles(at(4)).await.expect("written");
    assert_eq!((turn().await.status, turn().await.since), (Status::Idle, at(3)));
    hook.works(Some("p2"), at(5)).await.expect("written");
    assert_eq!((turn().await.since, turn().await.prompt.as_deref()), (at(5), Some("p2")));
}

#[tokio::test]
async fn the_doorbell_rings_once_until_something_was_seen() {
    let place = Place::new().await;
    place.keep(&["m1"], Priority::Next).await;
    let spool = &place.spool;
    let ring = async |ms| spool.may_ring(60_000, at(ms)).await.expect("asked");
    assert!(ring(0).await && !ring(1).await && !ring(59_999).await);
    spool.seen(&[1], Way::ToolResult, at(2)).await.expect("marked");
    assert!(ring(3).await && !ring(4).await);
    assert!(ring(60_003).await, "or after a while");
}

#[tokio::test]
async fn who_waits_to_wake_the_session_is_superseded_by_the_next() {
    let place = Place::new().await;
    place.spool.begin_to_wait("one").await.expect("written");
    assert!(place.spool.still_waits("one").await.expect("read"));
    place.other().await.begin_to_wait("two").await.expect("written");
    assert!(!place.spool.still_waits("one").await.expect("read"));
}

#[tokio::test]
async fn the_file_is_this_users_alone_and_a_newer_one_is_refused() {
    let place = Place::new().await;
    let path = place.folder.path().join("s/spool.db");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode =
            |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&path.with_file_name("spool.db-wal")), 0o600);
        assert_eq!(mode(path.parent().expect("a folder")), 0o700);
    }
    sqlx::query("pragma user_version = 2").execute(&place.spool.pool).await.expect("written");
    place.spool.close().await;
    let refused = Spool::open(&path).await.expect_err("of a newer release");
    assert!(format!("{refused:#}").contains("newer release"), "{refused:#}");
}
