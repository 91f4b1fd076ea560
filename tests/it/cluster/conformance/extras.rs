//! The directory, and the small things that hold across all nodes.

use super::*;

pub(super) async fn the_directory_shows_what_was_written<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    assert!(second.join_mesh(&mesh).await.unwrap().is_empty());
    let held = enter(&*first, &session(&mesh, "a")).await;
    let record = PresenceRecord {
        status: Status::Working,
        status_source: StatusSource::Hook,
        summary: Some("ünïcode \u{1F600}".to_owned()),
        hostname: None,
        visible: false,
        ..(*held.record).clone()
    };
    first.write_record(&held.lease, &record).await.unwrap();
    let rows = second.join_mesh(&mesh).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(serde_json::to_value(&rows[0]).unwrap(), serde_json::to_value(&record).unwrap());
    assert!(first.release(&held.lease, Release::Grace).await.unwrap());
    let row = second.directory(&mesh).await.unwrap().remove(0);
    assert_eq!((row.online, row.summary.as_deref()), (false, record.summary.as_deref()));
    second.leave_mesh(&mesh).await;
}

pub(super) async fn what_a_presence_hosts_outlives_its_socket<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    let held = enter(&*first, &session(&mesh, "host")).await;
    let hosted = McpServer {
        name: "srv".to_owned(),
        description: "ünïcode".to_owned(),
        tools: vec![McpTool { name: "t".to_owned(), description: String::new() }],
        persistent: true,
        registered_at: Timestamp::from_ms(5),
    };
    let record = PresenceRecord { mcp_servers: vec![hosted], ..(*held.record).clone() };
    assert!(first.write_record(&held.lease, &record).await.unwrap());
    assert!(first.release(&held.lease, Release::Grace).await.unwrap());
    let listed = second.directory(&mesh).await.unwrap().remove(0);
    assert_eq!((listed.online, &listed.mcp_servers), (false, &record.mcp_servers));
    // Its session comes back on another node, and says nothing of what it hosts.
    let (_, back) = reattach(&*second, &session(&mesh, "host")).await;
    assert_eq!(back.mcp_servers, record.mcp_servers);
}

pub(super) async fn a_digest_is_used_once<S: Subject>() {
    let subject = S::start(LONG).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..32 {
        let node = subject.nodes()[number % 2].clone();
        tasks.spawn(async move { node.use_once(&[7; 32], 60_000).await.unwrap() });
    }
    let firsts = tasks.join_all().await.into_iter().filter(|is_first| *is_first).count();
    assert_eq!(firsts, 1);
    let [node, _] = subject.nodes();
    assert!(node.use_once(&[8; 32], 50).await.unwrap());
    assert!(!node.use_once(&[8; 32], 50).await.unwrap());
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert!(node.use_once(&[8; 32], 50).await.unwrap());
}

pub(super) async fn tokens_are_exact<S: Subject>() {
    let subject = S::start(LONG).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let node = subject.nodes()[number % 2].clone();
        tasks.spawn(async move { taken(&*node, "member", draw("a", 7, 1, 100)).await });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<u32>(), 100);
    let [node, _] = subject.nodes();
    assert_eq!(taken(&*node, "another", draw("a", 3, 1, 100)).await, 3);
    // 1200 per minute is one each 50 ms.
    assert_eq!(taken(&*node, "fast", draw("a", 5, 1200, 5)).await, 5);
    tokio::time::sleep(Duration::from_millis(120)).await;
    let refilled = taken(&*node, "fast", draw("a", 5, 1200, 5)).await;
    assert!((2..=4).contains(&refilled), "{refilled}");
}

fn draw(bucket: &str, want: u32, per_minute: u32, burst: u32) -> Draw {
    Draw { bucket: bucket.to_owned(), want, per_minute, burst }
}

async fn taken(node: &dyn Cluster, owner: &str, draw: Draw) -> u32 {
    node.take_tokens(owner, &[draw]).await.unwrap()[0].got
}

pub(super) async fn several_buckets_are_drawn_from_at_once<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let draws = [draw("send", 10, 1, 100), draw("pair/bob", 10, 6, 8), draw("still", 2, 0, 3)];
    let drawn = first.take_tokens("ada", &draws).await.unwrap();
    assert_eq!(drawn.iter().map(|drawn| drawn.got).collect::<Vec<_>>(), [10, 8, 2]);
    assert_eq!(drawn.iter().map(|drawn| drawn.left).collect::<Vec<_>>(), [90, 0, 1]);
    assert_eq!((drawn[0].next_ms, drawn[0].full_ms), (60_000, 600_000));
    assert_eq!((drawn[1].next_ms, drawn[1].full_ms), (10_000, 80_000));
    assert_eq!((drawn[2].next_ms, drawn[2].full_ms), (u64::MAX, u64::MAX), "never");

    let drawn = second.take_tokens("ada", &draws).await.unwrap();
    assert_eq!(drawn.iter().map(|drawn| drawn.got).collect::<Vec<_>>(), [10, 0, 1]);
    assert!((1..=10_000).contains(&drawn[1].next_ms), "{drawn:?}");
    assert_eq!(taken(&*second, "eve", draws[1].clone()).await, 8, "another's");
    assert!(first.take_tokens("ada", &[]).await.unwrap().is_empty());
}

pub(super) async fn who_only_looks_takes_nothing<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let full = Drawn { got: 0, left: 5, next_ms: 0, full_ms: 0 };
    for node in [&first, &second] {
        assert_eq!(node.take_tokens("ada", &[draw("a", 0, 1, 5)]).await.unwrap(), [full]);
    }
    assert_eq!(taken(&*first, "ada", draw("a", 2, 1, 5)).await, 2);
    for node in [&first, &second] {
        let looked = node.take_tokens("ada", &[draw("a", 0, 1, 5)]).await.unwrap()[0];
        assert_eq!((looked.got, looked.left), (0, 3));
        assert!((60_000..=120_000).contains(&looked.full_ms), "{looked:?}");
    }
    assert_eq!(taken(&*second, "ada", draw("a", 9, 1, 5)).await, 3);
}

pub(super) async fn a_pending_status_is_the_newest_and_expires<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    first.put_pending_status(7, "/a b", Status::Working).await.unwrap();
    first.put_pending_status(7, "/a b", Status::Dnd).await.unwrap();
    first.put_pending_status(8, "/a b", Status::Working).await.unwrap();
    assert_eq!(second.take_pending_status(7, "/elsewhere").await.unwrap(), None);
    assert_eq!(second.take_pending_status(7, "/a b").await.unwrap(), Some(Status::Dnd));
    assert_eq!(second.take_pending_status(7, "/a b").await.unwrap(), None);
    tokio::time::sleep(Duration::from_millis(10_050)).await;
    assert_eq!(second.take_pending_status(8, "/a b").await.unwrap(), None);
}

pub(super) async fn a_written_record_stays_with_its_holder<S: Subject>() {
    let subject = S::start(LONG).await;
    let [first, second] = subject.nodes();
    let mesh = MeshId::generate();
    let held = enter(&*first, &session(&mesh, "a")).await;
    let record = PresenceRecord { node: "another".to_owned(), ..(*held.record).clone() };
    first.write_record(&held.lease, &record).await.unwrap();
    let rows = second.directory(&mesh).await.unwrap();
    assert_eq!(rows[0].node, held.record.node);
}
