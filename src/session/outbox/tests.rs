use bytes::Bytes;

use super::*;
use crate::limits;

fn frame(bytes: usize) -> Outgoing {
    Outgoing { bytes: Bytes::from(vec![b'x'; bytes]), content: Content::Multicast(1) }
}

fn subject(about: usize, event: &'static str) -> Arc<Subject> {
    Arc::new(Subject::new(&about.to_string(), event))
}

fn event(bytes: usize) -> Bytes {
    Bytes::from(vec![b'e'; bytes])
}

async fn all_of(outbox: &Outbox) -> VecDeque<Outgoing> {
    let mut out = VecDeque::new();
    assert_eq!(outbox.take(&mut out, usize::MAX).await, Taken::Frames);
    out
}

#[tokio::test]
async fn what_is_taken_counts_until_it_is_written() {
    let outbox = Outbox::new();
    let half = limits::OUTBOX_BYTES_MAX / 2;
    outbox.push(frame(half)).expect("fits");
    outbox.push(frame(half)).expect("fits");
    assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
    let out = all_of(&outbox).await;
    assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
    outbox.written(&out);
    outbox.push(frame(1)).expect("there is room again");
    assert_eq!(outbox.bytes(), 1);
}

#[tokio::test]
async fn frames_are_bounded_in_number_too() {
    let outbox = Outbox::new();
    for _ in 0..limits::OUTBOX_FRAMES_MAX {
        outbox.push(frame(1)).expect("fits");
    }
    assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
}

#[tokio::test]
async fn an_empty_outbox_takes_one_frame_of_any_size() {
    let outbox = Outbox::new();
    outbox.push(frame(limits::OUTBOX_BYTES_MAX * 2)).expect("alone");
    assert_eq!(outbox.push(frame(1)), Err(PushError::Full));
}

#[tokio::test]
async fn an_answer_is_taken_by_a_full_outbox_and_what_is_owed_counts() {
    let outbox = Outbox::new();
    outbox.push(frame(limits::OUTBOX_BYTES_MAX)).expect("fits");
    outbox.say(event(10));
    assert!(outbox.is_open() && !outbox.has_room());
    assert_eq!(outbox.bytes(), limits::OUTBOX_BYTES_MAX + 10);
    let out = all_of(&outbox).await;
    outbox.written(&out);
    assert!(outbox.has_room());

    let owed = outbox.owe(limits::OUTBOX_BYTES_MAX / 2);
    assert!(!outbox.has_room(), "no other request is read meanwhile");
    outbox.push(frame(1)).expect("half of it is free");
    assert_eq!(outbox.push(frame(limits::OUTBOX_BYTES_MAX / 2)), Err(PushError::Full));
    owed.pay(event(10));
    assert!(outbox.has_room());
    assert_eq!(outbox.bytes(), 11);
}

#[tokio::test]
async fn events_have_a_part_of_their_own_and_close_nobody() {
    let outbox = Outbox::new();
    outbox.push(frame(limits::OUTBOX_BYTES_MAX)).expect("fits");
    let bytes = limits::OUTBOX_EVENT_BYTES_MAX / 8;
    for about in 0..100 {
        outbox.tell(event(bytes), &subject(about, "peer_joined"));
    }
    assert!(outbox.is_open());
    assert_eq!(outbox.bytes(), limits::OUTBOX_BYTES_MAX + limits::OUTBOX_EVENT_BYTES_MAX);
    let out = all_of(&outbox).await;
    let told: Vec<_> = out
        .iter()
        .filter_map(|frame| match &frame.content {
            Content::Event(subject) => Some(subject.about().to_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["92", "93", "94", "95", "96", "97", "98", "99"], "the newest");
    // While they are being written, there is no room for more.
    outbox.tell(event(bytes), &subject(100, "peer_joined"));
    assert_eq!(outbox.bytes(), limits::OUTBOX_BYTES_MAX + limits::OUTBOX_EVENT_BYTES_MAX);
    outbox.written(&out);
    assert_eq!(outbox.bytes(), 0);
    for _ in 0..2 * limits::OUTBOX_EVENTS_MAX {
        outbox.tell(event(1), &subject(1, "peer_left"));
    }
    assert!(outbox.bytes() <= limits::OUTBOX_EVENTS_MAX, "small ones are counted");
    outbox.push(frame(limits::OUTBOX_BYTES_MAX)).expect("messages have their room");
}

#[tokio::test]
async fn of_events_about_one_presence_the_newest_of_each_kind_stays() {
    let outbox = Outbox::new();
    let bytes = limits::OUTBOX_EVENT_BYTES_MAX / 3;
    let (hidden, visible) = (subject(1, "peer_hidden"), subject(1, "peer_visible"));
    let other = subject(2, "peer_joined");
    outbox.tell(event(bytes), &other);
    for _ in 0..10 {
        outbox.tell(event(bytes), &hidden);
        outbox.tell(event(bytes), &visible);
    }
    let out = all_of(&outbox).await;
    let contents: Vec<_> = out.into_iter().map(|frame| frame.content).collect();
    assert_eq!(contents, [other, hidden, visible].map(Content::Event), "in order, once each");
}

#[tokio::test]
async fn data_push_out_older_data_one_by_one_and_no_other_event() {
    let outbox = Outbox::new();
    let bytes = limits::OUTBOX_EVENT_BYTES_MAX / 8;
    let (left, data) = (subject(1, "peer_left"), Arc::new(Subject::of_data()));
    outbox.tell(event(bytes), &left);
    for number in 0..20 {
        outbox.tell(Bytes::from(vec![number; bytes]), &data);
    }
    let out = all_of(&outbox).await;
    let first: Vec<u8> = out.iter().map(|frame| frame.bytes[0]).collect();
    assert_eq!(first, [b'e', 13, 14, 15, 16, 17, 18, 19], "the newest, in order");
    outbox.written(&out);
    for about in 0..8 {
        outbox.tell(event(bytes), &subject(about, "peer_left"));
    }
    outbox.tell(event(bytes), &data);
    assert_eq!(all_of(&outbox).await.len(), 8, "there is no room among events");
}

#[tokio::test]
async fn close_writes_what_is_queued_and_abort_does_not() {
    let outbox = Outbox::new();
    outbox.push(frame(1)).expect("fits");
    outbox.close(CloseReason::KICKED);
    assert_eq!(outbox.push(frame(1)), Err(PushError::Closed));
    let mut out = VecDeque::new();
    assert_eq!(outbox.take(&mut out, usize::MAX).await, Taken::Close(CloseReason::KICKED));
    assert_eq!(out.len(), 1);

    let outbox = Outbox::new();
    outbox.push(frame(1)).expect("fits");
    outbox.abort(CloseReason::SLOW_READER);
    outbox.close(CloseReason::KICKED);
    let mut out = VecDeque::new();
    assert_eq!(outbox.take(&mut out, usize::MAX).await, Taken::Close(CloseReason::SLOW_READER));
    assert!(out.is_empty());
}

#[tokio::test]
async fn waiting_for_room_ends_when_the_socket_does() {
    let outbox = Outbox::new();
    outbox.push(frame(limits::OUTBOX_BYTES_MAX)).expect("fits");
    let waiter = tokio::spawn({
        let outbox = outbox.clone();
        async move { outbox.room().await }
    });
    tokio::task::yield_now().await;
    outbox.retire();
    assert!(!waiter.await.expect("no panic"));
}
