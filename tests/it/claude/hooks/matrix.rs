//! Each state of a host, with each kind of message and one or many of them: the model sees
//! every message once, in order, at the event that is for it, and no message is told as
//! seen before.

use super::host::{Host, Kind, User, ids_of};

const PRIORITIES: [&str; 3] = ["now", "next", "low"];
const COUNTS: [usize; 2] = [1, 200];

/// Turns that a user may have to begin until 200 messages have been shown.
const TURNS_MAX: usize = 12;

/// Messages come, then the host does what it does in its state; `urgent_only` says that
/// this shows only such. Then turn follows turn until all is seen.
async fn all_is_seen_once(
    kind: Kind,
    urgent_only: bool,
    mut acts: impl FnMut(&mut Host<'_>) -> Vec<String>,
) {
    for priority in PRIORITIES {
        for count in COUNTS {
            let case = format!("{kind:?} {priority} {count}");
            let user = User::new(&["ada"]);
            let mut host = user.host(kind);
            host.starts("startup");
            host.prompt("begin");
            let mut mail = host.mail().await;
            let sent = mail.come(count, priority).await;
            let shown = acts(&mut host);
            let mut got = ids_of(&shown);
            if urgent_only && priority != "now" {
                assert!(got.is_empty(), "{case}: {got:?}");
            } else {
                assert!(!got.is_empty(), "{case}");
            }
            assert_eq!(mail.with_state("seen").await, got, "{case}: seen is what was shown");
            got.extend(shown_in_turns(&mut host));
            assert_eq!(got, sent, "{case}: each once, in order");
            assert_eq!(mail.with_state("seen").await, sent, "{case}");
            assert!(host.turn_ends().is_empty(), "{case}: nothing is left for the turn's end");
            assert_eq!(user.log(), "", "{case}");
        }
    }
}

/// The user goes on until nothing more is shown.
fn shown_in_turns(host: &mut Host<'_>) -> Vec<String> {
    let mut got = Vec::new();
    for _ in 0..TURNS_MAX {
        let shown = ids_of(&host.prompt("go on"));
        if shown.is_empty() {
            return got;
        }
        got.extend(shown);
    }
    panic!("there is no end of it: {got:?}");
}

#[tokio::test]
async fn a_busy_host_shows_only_what_is_urgent_between_two_tools() {
    all_is_seen_once(Kind::Claude, true, |host| host.tools().into_iter().collect()).await;
}

#[tokio::test]
async fn an_older_host_shows_the_urgent_beside_each_tools_result() {
    all_is_seen_once(Kind::OldClaude, true, |host| {
        let failed = host.calls(
            "post-tool-use-failure",
            "PostToolUseFailure",
            serde_json::json!({ "error": "x" }),
        );
        failed.into_iter().chain(host.tools()).collect()
    })
    .await;
}

#[tokio::test]
async fn a_turns_end_is_put_off_twice_for_what_waits() {
    for kind in [Kind::Claude, Kind::OldClaude, Kind::Codex] {
        all_is_seen_once(kind, false, |host| {
            let shown = host.turn_ends();
            assert!((1..=2).contains(&shown.len()), "{}", shown.len());
            shown
        })
        .await;
    }
}

#[tokio::test]
async fn whoever_types_is_shown_everything() {
    for kind in [Kind::Claude, Kind::Codex] {
        all_is_seen_once(kind, false, |host| host.prompt("again").into_iter().collect()).await;
    }
}

#[tokio::test]
async fn a_compacted_session_is_shown_everything() {
    all_is_seen_once(Kind::Claude, false, |host| host.starts("compact").into_iter().collect())
        .await;
}

#[tokio::test]
async fn a_cleared_session_keeps_its_mail() {
    all_is_seen_once(Kind::Claude, false, |host| {
        let before = host.mesh_session();
        host.ends("clear");
        host.session = format!("{}-cleared", host.session);
        let shown = host.starts("clear").into_iter().collect();
        assert_eq!(host.mesh_session(), before);
        shown
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_resumed_after_a_crash_has_its_mail_again() {
    for count in COUNTS {
        let user = User::new(&["ada"]);
        let mut host = user.host(Kind::Claude);
        host.starts("startup");
        host.prompt("begin");
        let (session, before) = (host.session.clone(), host.mesh_session());
        let sent = host.mail().await.come(count, "next").await;
        host.crashes();
        let mut again = user.host_of(Kind::Claude, &session);
        let mut got = ids_of(&again.starts("resume"));
        assert_eq!(again.mesh_session(), before);
        got.extend(shown_in_turns(&mut again));
        assert_eq!(got, sent);
    }
}

#[tokio::test]
async fn mail_of_a_session_that_never_comes_back_goes_to_the_next_of_its_peer() {
    let user = User::new(&["ada"]);
    let host = user.host(Kind::Claude);
    host.starts("startup");
    let sent = host.mail().await.come(3, "next").await;
    host.ends("prompt_input_exit");
    host.crashes();
    let next = user.host(Kind::Claude);
    assert_eq!(ids_of(&next.starts("startup")), sent);
    let other = user.host(Kind::Claude);
    assert!(ids_of(&other.starts("startup")).is_empty(), "once");
}

#[tokio::test]
async fn two_hooks_of_one_event_at_once_show_each_message_once() {
    let user = User::new(&["ada"]);
    let mut host = user.host(Kind::Claude);
    host.starts("startup");
    host.prompt("begin");
    let mut mail = host.mail().await;
    let sent = mail.come(40, "now").await;
    let mut got: Vec<String> = Vec::new();
    for _ in 0..4 {
        let shown: Vec<Option<String>> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| host.tools())).collect();
            calls.into_iter().map(|call| call.join().expect("no panic")).collect()
        });
        got.extend(ids_of(shown.iter().flatten()));
    }
    assert_eq!(mail.with_state("seen").await, sent);
    got.sort_by_key(|id| id["now-".len()..].parse::<u32>().expect("a number"));
    assert_eq!(got, sent);
}

#[tokio::test]
async fn what_a_busy_host_held_for_long_goes_in_between_two_tools() {
    let user = User::new(&["ada"]);
    let mut host = user.host(Kind::Claude);
    host.starts("startup");
    host.prompt("begin");
    let mut mail = host.mail().await;
    mail.come(1, "low").await;
    assert_eq!(host.tools(), None);
    mail.passes(11 * 60 * 1000).await;
    mail.comes("young", "next", "x").await;
    assert_eq!(ids_of(&host.tools()), ["low-1"]);
}

#[tokio::test]
async fn the_hosts_work_is_known_to_the_sessions_process() {
    let user = User::new(&["ada"]);
    let mut host = user.host(Kind::Claude);
    host.starts("startup");
    let mut mail = host.mail().await;
    assert_eq!(mail.status().await, "idle");
    host.prompt("begin");
    assert_eq!(mail.status().await, "working");
    host.tools();
    mail.come(1, "next").await;
    assert!(host.stops(false).is_some());
    assert_eq!(mail.status().await, "working", "the turn goes on for a message");
    host.starts("compact");
    assert_eq!(mail.status().await, "working", "also through a compaction");
    assert!(host.stops(true).is_none());
    assert_eq!(mail.status().await, "idle");
    host.tools();
    assert_eq!(mail.status().await, "working", "a turn that no prompt began");
    host.ends("other");
    assert_eq!(mail.status().await, "idle");
}

#[tokio::test]
async fn a_turn_that_its_user_broke_off_is_over_when_the_host_says_that_it_waits() {
    let user = User::new(&["ada"]);
    let mut host = user.host(Kind::Claude);
    host.starts("startup");
    let mut mail = host.mail().await;
    host.prompt("begin");
    // No end of the turn is told.
    let sent = mail.come(1, "next").await;
    host.notifies("permission_prompt");
    assert_eq!(mail.status().await, "working", "it waits for another thing");
    host.notifies("idle_prompt");
    assert_eq!(mail.status().await, "idle");
    assert!(mail.with_state("seen").await.is_empty(), "no model reads what is said there");
    assert_eq!(ids_of(&host.prompt("go on")), sent);
    assert_eq!(user.log(), "");
}
