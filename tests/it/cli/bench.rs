//! `bench` from outside: a small run of each scenario through the real
//! program, which must find that everything came exactly once.

use serde_json::Value;

use crate::harness::program::{Answer, Place};

fn bench(place: &Place, args: &[&str]) -> (i32, Value) {
    let mut command = place.command(&[&["bench"], args, &["--json"]].concat());
    let output = command.env("TMPDIR", place.path()).output().expect("the program starts");
    let answer = Answer::of(&output, args);
    (answer.code, answer.object())
}

/// Runs it; everything must be right. Returns the summary and the one round.
fn good(args: &[&str]) -> (Value, Value) {
    let place = Place::new();
    let (code, summary) = bench(&place, args);
    assert_eq!(code, 0, "{summary:#}");
    assert_eq!(summary["ok"], true);
    assert_eq!(summary["scenario"], args[0]);
    let round = summary["rounds"][0]["broker"].clone();
    let checks = &round["checks"];
    assert_eq!(checks["sent"], checks["acked"], "{checks}");
    assert_eq!(checks["expected"], checks["received"], "{checks}");
    for count in ["duplicates", "lost", "reordered", "unreadable", "refused", "disconnected"] {
        assert_eq!(checks[count], 0, "{count} in {checks}");
    }
    let left = std::fs::read_dir(place.path()).expect("readable").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("bench")), "left: {left:?}");
    (summary, round)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number expected: {value}"))
}

#[test]
fn direct_messages_come_once_and_are_measured() {
    let (summary, round) = good(&["direct", "--peers", "5", "--messages", "40"]);
    assert_eq!(round["checks"]["expected"], 200);
    assert_eq!(round["unit"], "messages");
    assert!(number(&summary["perSecond"]) > 0.0);
    let (p50, p99) = (number(&round["endToEndUs"]["p50"]), number(&round["endToEndUs"]["p99"]));
    assert!(p50 > 0.0 && p50 <= p99, "{round}");
    assert_eq!(round["endToEndUs"]["count"], 200);
    assert_eq!(round["ackUs"]["count"], 200);
    if cfg!(target_os = "linux") {
        assert!(number(&round["broker"]["residentPeakBytes"]) > 1e6, "{round}");
    }
    assert!(summary.get("ratio").is_none());
}

#[test]
fn the_floor_runs_in_turns_and_gives_a_ratio_and_a_page() {
    let place = Place::new();
    let page = place.path().join("page.html");
    let path = page.to_str().expect("UTF-8");
    let args = ["direct", "--peers", "4", "--messages", "30", "--floor", "--rounds", "2"];
    let (code, summary) = bench(&place, &[&args[..], &["--report", path]].concat());
    assert_eq!(code, 0, "{summary:#}");
    let rounds = summary["rounds"].as_array().expect("rounds");
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        for who in ["broker", "floor"] {
            assert_eq!(round[who]["ok"], true, "{who}: {round:#}");
            assert_eq!(round[who]["checks"]["received"], 120);
        }
    }
    assert!(number(&summary["ratio"]["median"]) > 0.0);
    assert_eq!(summary["ratio"]["rounds"].as_array().map(Vec::len), Some(2));
    let page = std::fs::read_to_string(page).expect("written");
    assert!(page.contains("<svg") && page.contains("polyline"), "{page}");
    assert!(!page.contains("http") && !page.contains("<script"), "it needs nothing else: {page}");
}

#[test]
fn at_a_fixed_rate_it_takes_the_time_that_it_must() {
    let (_, round) =
        good(&["direct", "--peers", "4", "--messages", "25", "--rate", "200", "--no-confirm"]);
    assert!(number(&round["seconds"]) >= 0.49, "{round}");
}

#[test]
fn everyone_gets_what_is_for_everyone() {
    let fanout = ["fanout", "--senders", "2", "--receivers", "8", "--messages", "10"];
    for besides in [&["--codec", "msgpack"][..], &["--sealed"]] {
        let (_, round) = good(&[&fanout, besides].concat());
        // The other sender gets it too.
        assert_eq!(round["checks"]["expected"], 2 * 10 * 9, "{besides:?}");
        assert_eq!(round["unit"], "deliveries");
    }
}

#[test]
fn meshes_do_not_mix() {
    let (_, round) = good(&[
        "mixed",
        "--meshes",
        "3",
        "--peers",
        "3",
        "--messages",
        "20",
        "--multicast-every",
        "5",
    ]);
    // 16 direct ones and 4 to both others, from each of 9.
    assert_eq!(round["checks"]["expected"], 9 * (16 + 4 * 2));
}

#[test]
fn a_storm_of_hellos_is_counted() {
    let (_, round) = good(&["connect", "--sockets", "20", "--meshes", "2"]);
    assert_eq!(round["count"], 20);
    assert_eq!(round["ackUs"]["count"], 20);
}

#[test]
fn idle_sockets_are_weighed() {
    let (_, round) = good(&["idle", "--sockets", "10", "--meshes", "2", "--seconds", "1"]);
    assert_eq!(round["count"], 10);
    if cfg!(target_os = "linux") {
        assert!(round["bytesPerSocket"].is_number(), "{round}");
        assert!(number(&round["cpuPercentOfACore"]) < 100.0);
    }
}

#[test]
fn those_who_come_and_go_miss_nothing() {
    let (_, round) = good(&["churn", "--peers", "4", "--cycles", "4", "--messages", "3"]);
    assert_eq!(round["count"], 16);
    assert_eq!(round["checks"]["expected"], 48);
}

#[test]
fn a_broker_that_is_away_is_said_so() {
    let place = Place::new();
    let args = ["direct", "--peers", "2", "--messages", "1", "--url", "ws://127.0.0.1:1/ws"];
    let (code, answer) = bench(&place, &args);
    assert_eq!(code, 1);
    let message = answer["error"]["message"].as_str().expect("a sentence");
    assert!(message.contains("127.0.0.1:1"), "{message}");
}

#[test]
fn what_a_mesh_shares_is_asked_for_and_told() {
    for (feature, unit, count) in [
        ("set-state", "requests", 80),
        ("get-state", "requests", 80),
        ("state-change", "deliveries", 60),
    ] {
        let args = ["features", feature, "--peers", "4", "--meshes", "2", "--requests", "20"];
        let (_, round) = good(&args);
        assert_eq!((&round["unit"], &round["count"]), (&unit.into(), &count.into()), "{feature}");
    }
}

#[test]
fn what_meshes_remember_is_searched_and_what_waits_is_weighed() {
    let size = ["--peers", "4", "--meshes", "2", "--rows", "60", "--bytes", "120"];
    let recall = ["features", "recall", "--requests", "20"];
    let (_, round) = good(&[&recall[..], &size[..]].concat());
    assert_eq!((&round["count"], &round["ackUs"]["count"]), (&80.into(), &80.into()));
    let alone = ["--peers", "2", "--meshes", "2", "--rows", "60", "--bytes", "120"];
    let (_, round) = good(&[&recall[..], &alone[..]].concat());
    assert_eq!(round["count"], 40, "a mesh of one peer is filled, too");
    let history = ["features", "history", "--requests", "5", "--rows", "600"];
    let (_, round) = good(&[&history[..], &["--peers", "4", "--meshes", "2"]].concat());
    assert_eq!(round["ackUs"]["count"], 20);
    let schedules = ["features", "schedules", "--seconds", "1"];
    let (_, round) = good(&[&schedules[..], &size[..]].concat());
    assert_eq!((&round["unit"], &round["count"]), (&"schedules".into(), &60.into()));
    if cfg!(target_os = "linux") {
        assert!(number(&round["cpuPercentOfACore"]) < 100.0, "{round}");
    }
    let place = Place::new();
    let (code, answer) = bench(&place, &["features", "recall", "--meshes", "1", "--peers", "2"]);
    assert_ne!(code, 0);
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("10000")));
}

#[test]
fn a_coding_session_is_given_each_message_once_whatever_it_is_at() {
    let size = ["--sessions", "2", "--messages", "2", "--pause", "0", "--patience", "60"];
    let (summary, round) =
        good(&[&["surface", "--tool", "100", "--turn", "2"], &size[..]].concat());
    // One before those that are measured, to each of two sessions in each of five states.
    assert_eq!(round["checks"]["expected"], 5 * 2 * 3);
    assert_eq!(summary["settings"]["toolMs"], 100);
    let says = round["standsIn"].as_str().expect("a sentence");
    assert!(says.contains("a model takes no time"), "{says}");
    let ways = [
        ("channel", &["channel"][..]),
        ("inbox", &["user-prompt-submit"]),
        ("inbox-asked", &["tool-result"]),
        ("busy-now", &["post-tool-batch", "stop", "user-prompt-submit"]),
        ("busy-next", &["stop", "user-prompt-submit"]),
    ];
    let rows = round["states"].as_array().expect("rows");
    assert_eq!(rows.len(), ways.len());
    for (row, (state, ways)) in rows.iter().zip(ways) {
        assert_eq!((&row["state"], &row["count"]), (&state.into(), &4.into()), "{row}");
        let came = row["ways"].as_object().expect("ways");
        assert!(came.keys().all(|way| ways.contains(&way.as_str())), "{state}: {row}");
        assert_eq!(came.values().filter_map(Value::as_u64).sum::<u64>(), 4, "{state}: {row}");
        for figures in [&row["givenUs"], &row["surfacedUs"]] {
            let [p50, p99, max] = ["p50", "p99", "max"].map(|at| number(&figures[at]));
            assert!(figures["count"] == 4 && p50 <= p99 && p99 <= max, "{state}: {row}");
        }
    }
}

#[test]
fn a_coding_session_has_no_floor_and_can_be_measured_in_one_state() {
    let place = Place::new();
    let (code, answer) = bench(&place, &["surface", "--floor"]);
    assert_ne!(code, 0);
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("floor")));
    let one = ["surface", "--state", "channel", "--sessions", "1", "--messages", "1"];
    let (_, round) = good(&[&one[..], &["--patience", "60"]].concat());
    assert_eq!(round["states"].as_array().map(Vec::len), Some(1), "{round}");
    assert_eq!(round["states"][0]["ways"], serde_json::json!({"channel": 1}));
}
