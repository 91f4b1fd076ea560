//! Asks whatever listens on a port of this machine whether it is a broker.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::ListenConfig;

/// From connecting to the whole answer; what takes longer is no broker.
const PROBE_DEADLINE: Duration = Duration::from_millis(1500);

/// As much of an answer as is read; a longer one is no broker's.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What `/health` says, as far as it matters here.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) version: String,
    /// `up` or `down`.
    pub(super) db: String,
    /// For how many seconds the broker has been running.
    pub(super) uptime: u64,
}

/// The health of the broker that listens where `config` says; `None` when
/// nothing does, or something else.
pub(super) async fn health(config: &ListenConfig) -> Option<Health> {
    tokio::time::timeout(PROBE_DEADLINE, ask(reachable(config))).await.ok().flatten()
}

/// An address that the wildcard can be reached by.
pub(super) fn reachable(config: &ListenConfig) -> SocketAddr {
    let address = match config.bind {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(IpAddr::V4(bind)) if bind.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(IpAddr::V6(bind)) if bind.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(address) => address,
    };
    SocketAddr::new(address, config.port)
}

async fn ask(address: SocketAddr) -> Option<Health> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    socket.write_all(REQUEST).await.ok()?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Option<Health> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_brokers_health_is_taken_for_one() {
        let body = r#"{"status":"ok","db":"up","version":"0.1.0","gitSha":"x","uptime":5}"#;
        let health = parse(format!("HTTP/1.1 200 OK\r\na: b\r\n\r\n{body}").as_bytes());
        let expected = Health { version: "0.1.0".to_owned(), db: "up".to_owned(), uptime: 5 };
        assert_eq!(health, Some(expected));
        for other in [
            "SSH-2.0-OpenSSH",
            "HTTP/1.1 404 Not Found\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\n\r\n<html>",
            "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ok\"}",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_wildcard_is_reached_over_loopback() {
        for (bind, reached) in
            [("::", "[::1]:1"), ("0.0.0.0", "127.0.0.1:1"), ("10.0.0.1", "10.0.0.1:1")]
        {
            let config = ListenConfig { bind: bind.parse().ok(), port: 1 };
            assert_eq!(reachable(&config).to_string(), reached);
        }
    }
}
