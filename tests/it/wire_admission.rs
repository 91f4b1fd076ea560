//! Who gets in: limits per address, whose word counts about addresses, and
//! which web pages may ask.

use claudemesh_broker::config::Config;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::{Node, http, until};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Header<'a> = (&'static str, &'a str);

/// As a proxy on this machine forwards it.
fn behind_proxy(config: &mut Config) {
    config.http.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
}

/// Upgrades; else the status of the refusal.
async fn upgrade(node: &Node, headers: &[Header<'_>]) -> Result<Socket, u16> {
    let mut request = node.url().into_client_request().expect("a URL");
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().expect("a value"));
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// How a call that counts is answered: 429, or what it is about.
async fn call(node: &Node, headers: &[Header<'_>]) -> u16 {
    http::request(node, "POST", "/join", headers, "{}").await.status
}

#[tokio::test]
async fn an_address_has_so_many_sockets_and_gives_them_back() {
    let node = Node::start_with(|config| {
        behind_proxy(config);
        config.http.connections_per_ip_max = 2;
    })
    .await;
    let one = [("x-forwarded-for", "203.0.113.1")];
    let first = upgrade(&node, &one).await.expect("a place");
    let _second = upgrade(&node, &one).await.expect("a place");
    assert_eq!(upgrade(&node, &one).await.expect_err("no more"), 429);
    let _other = upgrade(&node, &[("x-forwarded-for", "203.0.113.2")]).await.expect("another");
    drop(first);
    until("its place is free", async || upgrade(&node, &one).await.is_ok()).await;
}

#[tokio::test]
async fn an_ipv6_client_counts_by_its_network() {
    let node = Node::start_with(|config| {
        behind_proxy(config);
        config.http.connections_per_ip_max = 1;
        config.http.hello_rate_per_minute = 2;
    })
    .await;
    let from = |address| [("x-forwarded-for", address)];
    let _first = upgrade(&node, &from("2001:db8:0:1::1")).await.expect("a place");
    let second = upgrade(&node, &from("2001:db8:0:1:ffff::2")).await;
    assert_eq!(second.expect_err("no more"), 429);
    assert_eq!(call(&node, &from("2001:db8:0:1::3")).await, 429);
    let _other = upgrade(&node, &from("2001:db8:0:2::1")).await.expect("another network");
}

#[tokio::test]
async fn an_address_may_call_so_often() {
    let node = Node::start_with(|config| {
        behind_proxy(config);
        config.http.hello_rate_per_minute = 2;
    })
    .await;
    let one = [("x-forwarded-for", "203.0.113.1")];
    assert_eq!([call(&node, &one).await, call(&node, &one).await], [400, 400]);
    let refused = http::request(&node, "POST", "/join", &one, "{}").await;
    assert_eq!(refused.status, 429);
    let seconds: u64 = refused.header("retry-after").and_then(|it| it.parse().ok()).expect("when");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(upgrade(&node, &one).await.expect_err("the same limit"), 429);
    assert_eq!(call(&node, &[("x-forwarded-for", "203.0.113.2")]).await, 400);
    // What the client itself wrote stands left of what the proxy added.
    let spoofed = [("x-forwarded-for", "198.51.100.7, 203.0.113.1")];
    assert_eq!(call(&node, &spoofed).await, 429);
    let spoofed = [("x-forwarded-for", "198.51.100.8"), ("x-forwarded-for", "203.0.113.1")];
    assert_eq!(call(&node, &spoofed).await, 429);
}

#[tokio::test]
async fn a_stranger_is_not_believed_about_its_address() {
    let headers = ["x-forwarded-for", "fly-client-ip", "forwarded", "x-real-ip"];
    // No proxy is named: the socket's address counts, which is loopback's.
    let node = Node::start_with(|config| config.http.hello_rate_per_minute = 1).await;
    for name in headers {
        for _ in 0..3 {
            assert_eq!(call(&node, &[(name, "203.0.113.1")]).await, 400, "{name}");
        }
    }
    // A proxy that is named sets X-Forwarded-For; Fly's header passes it as the
    // client wrote it.
    let node = Node::start_with(|config| {
        behind_proxy(config);
        config.http.hello_rate_per_minute = 1;
    })
    .await;
    let both = |fly| [("x-forwarded-for", "203.0.113.1"), ("fly-client-ip", fly)];
    assert_eq!(call(&node, &both("198.51.100.1")).await, 400);
    assert_eq!(call(&node, &both("198.51.100.2")).await, 429);
    // On Fly.io its proxy sets that header, and X-Forwarded-For is the client's.
    let node = Node::start_with(|config| {
        config.node.on_fly = true;
        config.http.hello_rate_per_minute = 1;
    })
    .await;
    let both = |forwarded| [("fly-client-ip", "203.0.113.1"), ("x-forwarded-for", forwarded)];
    assert_eq!(call(&node, &both("198.51.100.1")).await, 400);
    assert_eq!(call(&node, &both("198.51.100.2")).await, 429);
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_gets_nothing() {
    let node = Node::start_with(|config| {
        config.http.allowed_origins = vec!["https://app.example.org".to_owned()];
    })
    .await;
    let own = format!("http://{}", node.address);
    for origin in ["https://app.example.org", own.as_str()] {
        assert!(upgrade(&node, &[("origin", origin)]).await.is_ok(), "{origin}");
        assert_eq!(call(&node, &[("origin", origin)]).await, 400, "{origin}");
    }
    for origin in ["https://evil.example", "null", "https://app.example.org.evil.example", ""] {
        let foreign = [("origin", origin)];
        assert_eq!(upgrade(&node, &foreign).await.expect_err("foreign"), 403, "{origin}");
        assert_eq!(call(&node, &foreign).await, 403, "{origin}");
        let preflight = http::request(&node, "OPTIONS", "/join", &foreign, "").await;
        assert_eq!(preflight.status, 403, "{origin}");
        assert_eq!(preflight.header("access-control-allow-origin"), None);
    }
    assert!(upgrade(&node, &[]).await.is_ok(), "no browser");
    assert_eq!(call(&node, &[]).await, 400, "no browser");
    let open = Node::start().await;
    assert!(upgrade(&open, &[("origin", "https://any.example")]).await.is_ok(), "none is set");
}

#[tokio::test]
async fn a_page_on_this_machine_cannot_set_statuses() {
    let body = json!({ "cwd": "/nowhere", "status": "idle" }).to_string();
    let node = Node::start().await;
    let hook = async |node: &Node, headers: &[Header<'_>]| {
        http::request(node, "POST", "/hook/set-status", headers, &body).await.status
    };
    assert_eq!(hook(&node, &[]).await, 200);
    for origin in ["https://evil.example", "http://localhost:3000", "null"] {
        assert_eq!(hook(&node, &[("origin", origin)]).await, 403, "{origin}");
    }
    let node = Node::start_with(|config| {
        config.http.allowed_origins = vec!["http://localhost:3000".to_owned()];
    })
    .await;
    assert_eq!(hook(&node, &[("origin", "http://localhost:3000")]).await, 200, "it is named");
}
