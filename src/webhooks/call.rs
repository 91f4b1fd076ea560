//! One call of an address: its name is looked up once, each address that comes of that
//! is checked, and what was checked is what is connected to. No redirect is followed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use tokio::net::{TcpStream, lookup_host};
use url::{Host, Url};

use super::address::{self, PRIVATE};
use super::signing;
use crate::client::{ClientError, http::send_over};
use crate::clock::Timestamp;
use crate::limits;
use crate::store::{Waiting, WaitingEvent};

/// Tells an address of an event.
///
/// # Errors
/// A short reason, which names neither the address nor a secret.
pub(super) async fn call(
    to: &Waiting,
    event: &WaitingEvent,
    allows_private: bool,
) -> Result<(), String> {
    let deadline = Duration::from_millis(limits::WEBHOOK_CALL_MS);
    let exchange = exchange(to, event, allows_private);
    tokio::time::timeout(deadline, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", deadline.as_secs())))
}

async fn exchange(to: &Waiting, event: &WaitingEvent, allows_private: bool) -> Result<(), String> {
    let url = address::check(&to.url, allows_private)?;
    let request = request(to, event).map_err(|error| error.to_string())?;
    let tcp = connect(&url, allows_private).await?;
    let (status, _) = send_over(tcp, &url, request).await.map_err(|error| match error {
        ClientError::Unreachable { reason, .. } => without_names(&reason),
        _ => "the exchange failed".to_owned(),
    })?;
    match status.is_success() {
        true => Ok(()),
        false => Err(format!("status {}", status.as_u16())),
    }
}

/// What went wrong, without what it went wrong with: TLS names the address.
fn without_names(reason: &str) -> String {
    reason.split([':', '"']).next().unwrap_or_default().trim().to_owned()
}

fn request(to: &Waiting, event: &WaitingEvent) -> http::Result<Request<Bytes>> {
    let mut data = event.data.clone();
    data["meshId"] = serde_json::json!(to.mesh);
    // The same at each try, but for when it is made.
    let body = serde_json::json!({
        "type": event.event, "timestamp": event.created_at, "data": data,
    });
    let body = Bytes::from(body.to_string());
    let id = format!("{}-{}", to.webhook, event.id);
    let seconds = Timestamp::now().as_ms() / 1000;
    Request::builder()
        .method(Method::POST)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "claudemesh-broker")
        .header("webhook-id", &id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", signing::standard(&to.signing_secret, &id, seconds, &body))
        .body(body)
}

async fn connect(url: &Url, allows_private: bool) -> Result<TcpStream, String> {
    let mut reason = PRIVATE.to_owned();
    for found in look_up(url).await? {
        if !allows_private && !address::is_public(found.ip()) {
            continue;
        }
        match TcpStream::connect(found).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => reason = error.kind().to_string(),
        }
    }
    Err(reason)
}

async fn look_up(url: &Url) -> Result<Vec<SocketAddr>, String> {
    let port = url.port_or_known_default().unwrap_or(80);
    match url.host() {
        Some(Host::Ipv4(address)) => Ok(vec![(IpAddr::V4(address), port).into()]),
        Some(Host::Ipv6(address)) => Ok(vec![(IpAddr::V6(address), port).into()]),
        Some(Host::Domain(name)) => match lookup_host((name, port)).await {
            Ok(found) => Ok(found.collect()),
            Err(_) => Err("the name was not found".to_owned()),
        },
        None => Err("the address has no host".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_call_failed_names_no_address() {
        let reason = "invalid peer certificate: certificate not valid for name \"a.example\"";
        assert_eq!(without_names(reason), "invalid peer certificate");
        assert_eq!(without_names("connection reset by peer"), "connection reset by peer");
    }
}
