//! Plain HTTP, one request per connection, so that nothing is hidden.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Node, PATIENCE};

/// What a request was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    /// A header's value, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

pub async fn get(node: &Node, path: &str) -> Reply {
    request(node, "GET", path, &[], "").await
}

pub async fn post(node: &Node, path: &str, body: &str) -> Reply {
    request(node, "POST", path, &[("content-type", "application/json")], body).await
}

pub async fn request(
    node: &Node,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let host = node.address.to_string();
    let has_host = headers.iter().any(|(name, _)| *name == "host");
    let host = [("host", host.as_str())].into_iter().filter(|_| !has_host);
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in host.chain(headers.iter().copied()) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()));
    let exchange = async {
        let mut stream = TcpStream::connect(node.address).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("writable");
        // A refusal may come before the body has been read.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).expect("UTF-8")
    };
    parse(&timeout(PATIENCE, exchange).await.expect("an answer in time"))
}

fn parse(answer: &str) -> Reply {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|s| s.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Reply { status: status.expect("a status"), headers, body: body.to_owned() }
}
