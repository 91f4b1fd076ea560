//! The one HTTP call that every peer makes once: `/join`; and what it stands on.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use url::Url;

use super::error::ClientError;
use super::options::Identity;
use super::socket::{dial, tls_config};
use crate::auth::{InviteLink, SecretKey};
use crate::id::{Key, MemberId, MeshId};

/// The bound of a whole call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer. More: an error.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What became of a `/join`.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The member's id.
    pub member: MemberId,
    /// The mesh it is a member of.
    pub mesh: MeshId,
    /// The mesh's short name.
    pub mesh_slug: String,
    /// Where the mesh's broker listens.
    pub broker_url: String,
    /// Whether the key was a member before, so that the invite was not used.
    pub already_member: bool,
    /// The owner's key, as the invite names it: not by the broker's word.
    pub owner: Key,
}

impl Enrolled {
    /// The identity that can connect now.
    #[must_use]
    pub fn identity(&self, member_key: SecretKey) -> Identity {
        Identity::new(self.mesh.clone(), self.member.clone(), member_key)
    }
}

/// Joins a mesh by an invite (a token or an `ic://join/` link) with a key made
/// for it. `broker_url` overrides the address that the invite carries; `ws:`
/// and `http:` forms are the same here.
///
/// Joining again with the same key is no error and uses no invite.
///
/// # Errors
/// [`ClientError::Http`] with the broker's code if it refuses, or why there is
/// no answer.
pub async fn join(
    broker_url: Option<&str>,
    invite: &str,
    key: &SecretKey,
    name: &str,
) -> Result<Enrolled, ClientError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        ok: bool,
        #[serde(default, rename = "memberId")]
        member_id: Option<MemberId>,
        #[serde(default, rename = "alreadyMember")]
        already_member: bool,
        #[serde(default)]
        error: Option<String>,
    }
    let link =
        InviteLink::read(invite).map_err(|error| ClientError::Unexpected(error.to_string()))?;
    let member_signature = link.vouch(&key.public_key());
    let InviteLink { token, payload, .. } = link;
    let broker_url = broker_url.unwrap_or(&payload.broker_url).to_owned();
    let mut body = json!({
        "invite_token": token,
        "invite_payload": payload,
        "peer_pubkey": key.public_key(),
        "display_name": name,
    });
    if let Some(signature) = member_signature {
        body["member_signature"] = signature.into();
    }
    let url = http_url(&broker_url, "/join")?;
    let (status, bytes) = call(Method::POST, &url, &[], Some(&body)).await?;
    let answer = serde_json::from_slice::<Answer>(&bytes).ok();
    match answer {
        Some(Answer { ok: true, member_id: Some(member), already_member, .. }) => Ok(Enrolled {
            member,
            mesh: MeshId::from(payload.mesh_id),
            mesh_slug: payload.mesh_slug,
            broker_url,
            already_member,
            owner: Key::from(payload.owner_pubkey),
        }),
        answer => Err(ClientError::Http {
            status: status.as_u16(),
            message: answer
                .and_then(|answer| answer.error)
                .unwrap_or_else(|| "no broker's answer to /join".to_owned()),
        }),
    }
}

/// The HTTP address of a broker's route, whichever way its address is written:
/// `ws://host:7900/ws` with `/join` is `http://host:7900/join`.
///
/// # Errors
/// [`ClientError::Address`].
pub fn http_url(broker_url: &str, route: &str) -> Result<Url, ClientError> {
    let address = || ClientError::Address(broker_url.to_owned());
    let url = Url::parse(broker_url).map_err(|_| address())?;
    let scheme = match url.scheme() {
        "ws" | "http" => "http",
        "wss" | "https" => "https",
        _ => return Err(address()),
    };
    let host = url.host_str().ok_or_else(address)?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let prefix = url.path().trim_end_matches('/').trim_end_matches("/ws");
    Url::parse(&format!("{scheme}://{host}{port}{prefix}{route}")).map_err(|_| address())
}

/// One HTTP request on a connection of its own.
///
/// # Errors
/// [`ClientError::Unreachable`] or [`ClientError::Timeout`]; a status is none.
pub async fn call(
    method: Method,
    url: &Url,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let mut request = Request::builder().method(method);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = request.body(bytes).map_err(|error| unreachable(url, &error))?;
    send(url, request, TIMEOUT).await
}

/// A request whose address is that URL, whatever it says of it itself.
pub(crate) async fn send(
    url: &Url,
    request: Request<Bytes>,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), ClientError> {
    let calling = async { send_over(dial(url).await?, url, request).await };
    tokio::time::timeout(timeout, calling).await.map_err(|_| ClientError::Timeout(timeout))?
}

/// As [`send`], over a connection to whichever address the caller chose.
pub(crate) async fn send_over(
    tcp: TcpStream,
    url: &Url,
    request: Request<Bytes>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let request = addressed(url, request)?;
    if url.scheme() != "https" {
        return exchange(tcp, request).await.map_err(|error| unreachable(url, &error));
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| unreachable(url, &error))?;
    let connector = TlsConnector::from(tls_config(url.as_str())?);
    let tls = connector.connect(name, tcp).await.map_err(|error| unreachable(url, &error))?;
    exchange(tls, request).await.map_err(|error| unreachable(url, &error))
}

fn addressed(url: &Url, request: Request<Bytes>) -> Result<Request<Full<Bytes>>, ClientError> {
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let (mut head, body) = request.into_parts();
    head.uri = target.parse().map_err(|error| unreachable(url, &error))?;
    let host = HeaderValue::from_str(host).map_err(|error| unreachable(url, &error))?;
    head.headers.insert(header::HOST, host);
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(Request::from_parts(head, Full::new(body)))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answering = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(answering);
    tokio::select! {
        answer = &mut answering => answer,
        ended = &mut connection => match ended {
            // All has been read that there will be.
            Ok(()) => answering.await,
            Err(error) => Err(error.into()),
        },
    }
}

fn unreachable(url: &Url, error: &(impl ToString + ?Sized)) -> ClientError {
    ClientError::Unreachable { url: url.to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brokers_address_has_several_spellings() {
        for (given, expected) in [
            ("ws://localhost:7900/ws", "http://localhost:7900/join"),
            ("wss://mesh.example/ws", "https://mesh.example/join"),
            ("ws://[::1]:7900/ws/", "http://[::1]:7900/join"),
            ("http://127.0.0.1:7900", "http://127.0.0.1:7900/join"),
            ("https://mesh.example/broker/ws", "https://mesh.example/broker/join"),
        ] {
            assert_eq!(http_url(given, "/join").expect(given).as_str(), expected);
        }
        for odd in ["", "mesh.example", "ftp://mesh.example/ws"] {
            assert!(matches!(http_url(odd, "/join"), Err(ClientError::Address(_))), "{odd}");
        }
    }
}
