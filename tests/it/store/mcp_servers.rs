//! Servers that outlive their hosts.

use claudemesh_broker::clock::Timestamp;
use claudemesh_broker::id::PresenceId;
use claudemesh_broker::limits;
use claudemesh_broker::protocol::McpTool;
use claudemesh_broker::record::McpServer;
use claudemesh_broker::store::{Author, KeptServer, Kind, StoreError, Stores};
use serde_json::json;

use super::fixture::{Fixture, Peer, T0, at};

fn server(name: &str, at: Timestamp) -> McpServer {
    McpServer {
        name: name.to_owned(),
        description: "ünï \u{1F600} 'd'".to_owned(),
        tools: vec![McpTool { name: "t\"".to_owned(), description: "what it does".to_owned() }],
        persistent: true,
        registered_at: at,
    }
}

fn author(here: &Fixture, peer: &Peer, presence: &PresenceId) -> Author {
    Author { presence: presence.clone(), ..here.author(peer) }
}

fn names(kept: &[KeptServer]) -> Vec<&str> {
    kept.iter().map(|kept| kept.server.name.as_str()).collect()
}

pub(crate) async fn a_server_is_kept_whole_and_forgotten(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let presence = here.present(&ada).await;
    let servers = &store.mcp_servers;
    let by = author(&here, &ada, &presence);
    servers.keep(at(1), &by, &server("srv", at(1))).await.expect("kept");
    let kept = servers.named(&here.mesh, "srv").await.expect("readable").expect("it is there");
    assert_eq!((&kept.server, &kept.member), (&server("srv", at(1)), &ada.id));
    assert_eq!((kept.hosted_by.as_str(), kept.heard_at), ("ada", T0));
    store.presences.touch(at(9), std::slice::from_ref(&presence)).await.expect("touched");
    let kept = servers.named(&here.mesh, "srv").await.expect("readable").expect("it is there");
    assert_eq!(kept.heard_at, at(9), "its host was heard of");
    // A later registration takes the name over, whosever it is.
    let other = author(&here, &bob, &PresenceId::from("gone"));
    servers.keep(at(2), &other, &server("srv", at(2))).await.expect("kept");
    let kept = servers.named(&here.mesh, "srv").await.expect("readable").expect("it is there");
    assert_eq!((&kept.member, kept.heard_at), (&bob.id, at(2)), "its host has no row");
    servers.rehost(&here.mesh, "srv", &presence).await.expect("written");
    let kept = servers.named(&here.mesh, "srv").await.expect("readable").expect("it is there");
    assert_eq!(kept.heard_at, at(9));
    let elsewhere = here.another().await;
    assert_eq!(servers.named(&elsewhere.mesh, "srv").await.expect("readable"), None);
    assert!(servers.forget(at(3), &by, "srv").await.expect("forgotten"));
    assert!(!servers.forget(at(4), &by, "srv").await.expect("there is none"));
    assert_eq!(servers.named(&here.mesh, "srv").await.expect("readable"), None);
    let rows = here.audit().await;
    let of = |kind: &str| rows.iter().filter(|row| row.event_type == kind).collect::<Vec<_>>();
    assert_eq!((of("mcp_registered").len(), of("mcp_unregistered").len()), (2, 1));
    assert_eq!(of("mcp_registered")[0].payload, json!({ "serverName": "srv" }));
    assert_eq!(of("mcp_unregistered")[0].actor.as_deref(), Some(ada.id.as_str()));
}

pub(crate) async fn servers_are_listed_by_name_from_anywhere(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let (ada, bob) = (here.member("ada").await, here.member("bob").await);
    let presence = PresenceId::generate();
    for (peer, name) in [(&ada, "c"), (&bob, "a"), (&ada, "b"), (&bob, "d")] {
        let by = author(&here, peer, &presence);
        store.mcp_servers.keep(T0, &by, &server(name, T0)).await.expect("kept");
    }
    let listed = async |after: &str, limit| {
        let kept = store.mcp_servers.list(&here.mesh, after, limit).await.expect("readable");
        names(&kept).join("")
    };
    assert_eq!((listed("", 10).await.as_str(), listed("a", 2).await.as_str()), ("abcd", "bc"));
    assert_eq!(listed("d", 10).await, "");
    let of = async |peer: &Peer, limit| {
        let kept = store.mcp_servers.of_member(&here.mesh, &peer.id, limit).await;
        names(&kept.expect("readable")).join("")
    };
    assert_eq!((of(&ada, 10).await.as_str(), of(&bob, 1).await.as_str()), ("bc", "a"));
    let elsewhere = here.another().await;
    let none = store.mcp_servers.of_member(&elsewhere.mesh, &ada.id, 10).await.expect("readable");
    assert!(none.is_empty());
}

pub(crate) async fn servers_are_counted_and_bounded(store: Stores) {
    let here = Fixture::new(store.clone()).await;
    let by = author(&here, &here.owner, &PresenceId::generate());
    let large = limits::SHARED_BYTES_MAX / 4;
    let of_size = |name: &str, bytes: i64| McpServer {
        description: "d".repeat(usize::try_from(bytes).expect("a size")),
        tools: Vec::new(),
        ..server(name, T0)
    };
    let keep = async |server: &McpServer| store.mcp_servers.keep(T0, &by, server).await;
    for number in 0..3 {
        keep(&of_size(&number.to_string(), large)).await.expect("kept");
    }
    let refusal = keep(&of_size("one more", large)).await.expect_err("too much");
    let StoreError::Full(full) = refusal else { panic!("{refusal:?}") };
    assert_eq!(full.kind, Kind::McpServer);
    assert_eq!(store.mcp_servers.named(&here.mesh, "one more").await.expect("readable"), None);
    assert_eq!(here.audit_of("mcp_registered").await.len(), 3, "nothing of it happened");
    // What takes the place of another counts for the difference, and what goes for nothing.
    keep(&of_size("0", large - 100)).await.expect("kept");
    assert!(store.mcp_servers.forget(T0, &by, "1").await.expect("forgotten"));
    keep(&of_size("one more", large)).await.expect("kept");
}
