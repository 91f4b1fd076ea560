//! Who gets in: limits per address, whose word counts about addresses, and
//! which web pages may ask.

use claudemesh_broker::config::{Config, Secret};
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
    let seconds: u64 =
        refused.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("when");
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
    // No proxy is named. What comes from this machine is exempt unless one shows;
    // then nobody knows whose it is, and all of those share one limit.
    let node = Node::start_with(|config| config.http.hello_rate_per_minute = 1).await;
    assert_eq!(call(&node, &[(headers[0], "203.0.113.1")]).await, 400);
    for name in headers {
        for address in ["203.0.113.1", "203.0.113.2", "127.0.0.1"] {
            assert_eq!(call(&node, &[(name, address)]).await, 429, "{name}: {address}");
        }
        assert_eq!(call(&node, &[]).await, 400, "no proxy shows");
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
async fn an_address_counts_the_same_however_a_proxy_writes_it() {
    let node = Node::start_with(|config| {
        behind_proxy(config);
        config.http.hello_rate_per_minute = 1;
        config.http.connections_per_ip_max = 1;
    })
    .await;
    let from = |address| [("x-forwarded-for", address)];
    assert_eq!(call(&node, &from("203.0.113.1")).await, 400);
    for same in ["::ffff:203.0.113.1", "203.0.113.1:80", "[::ffff:203.0.113.1]:80"] {
        assert_eq!(call(&node, &from(same)).await, 429, "{same}");
    }
    assert_eq!(call(&node, &from("::ffff:203.0.113.2")).await, 400, "another one");
    assert_eq!(call(&node, &from("\"[2001:db8::1]:443\"")).await, 400);
    assert_eq!(call(&node, &from("2001:db8::2")).await, 429, "of the same network");
    // What cannot be read, and what claims to be this machine, is never exempt.
    assert_eq!(call(&node, &from("unknown")).await, 400);
    for stranger in ["unknown", "127.0.0.1", "::1", "[::1]:80", "_hidden", "not an address"] {
        assert_eq!(call(&node, &from(stranger)).await, 429, "{stranger}");
        assert_eq!(upgrade(&node, &from(stranger)).await.expect_err("full"), 429, "{stranger}");
    }
}

#[tokio::test]
async fn a_stranger_that_guesses_tokens_is_kept_out_and_the_operator_is_not() {
    let token = "a-token-for-operators";
    let node = Node::start_with(|config| {
        behind_proxy(config);
        config.http.admin_tokens = vec![Secret::new(token)];
    })
    .await;
    let call = async |headers: &[Header<'_>], token: &str| {
        let bearer = format!("bearer {token}");
        let headers = [headers, &[("authorization", bearer.as_str())]].concat();
        http::request(&node, "GET", "/admin/v1/nodes", &headers, "").await.status
    };
    for stranger in ["::ffff:203.0.113.1", "203.0.113.3:4711", "unknown", "127.0.0.1"] {
        let from = [("x-forwarded-for", stranger)];
        let mut answers = Vec::new();
        for _ in 0..15 {
            answers.push(call(&from, "a-wrong-guess-of-it").await);
        }
        assert!(answers.ends_with(&[429, 429]), "{stranger}: {answers:?}");
        for operator in ["::ffff:203.0.113.2", "203.0.113.4:99"] {
            assert_eq!(call(&[("x-forwarded-for", operator)], token).await, 200, "{stranger}");
        }
        assert_eq!(call(&[], token).await, 200, "from this machine itself");
    }
}

#[tokio::test]
async fn a_name_that_leads_here_does_not_make_a_page_the_brokers_own() {
    let node = Node::start_with(|config| {
        config.http.allowed_origins = vec!["https://app.example.org".to_owned()];
        config.http.public_url = Some("wss://mesh.example.org/ws".to_owned());
        config.http.own_hosts = vec!["mesh.internal".to_owned()];
    })
    .await;
    let port = node.address.port();
    let page = |name: &str| {
        let host = format!("{name}:{port}");
        (format!("http://{host}"), host)
    };
    for (name, status) in [
        ("evil.test", 403),
        ("mesh.example.org.evil.test", 403),
        ("localhost", 400),
        ("127.0.0.1", 400),
        ("mesh.internal", 400),
        ("mesh.example.org", 400),
    ] {
        let (origin, host) = page(name);
        let headers = [("host", host.as_str()), ("origin", origin.as_str())];
        assert_eq!(call(&node, &headers).await, status, "{name}");
        let asked = [
            ("host", host.as_str()),
            ("origin", origin.as_str()),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        if status == 403 {
            assert_eq!(http::request(&node, "GET", "/ws", &asked, "").await.status, 403, "{name}");
        }
    }
    // A proxy may call the broker by another name.
    let behind = [("host", "10.0.0.7:7900"), ("origin", "https://mesh.example.org")];
    assert_eq!(call(&node, &behind).await, 400);
    let other = [("host", "localhost:1"), ("origin", "http://localhost:3000")];
    assert_eq!(call(&node, &other).await, 403, "another program of this machine");
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
