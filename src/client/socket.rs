//! From an address to an active session.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::{Host, Url};

use super::error::ClientError;
use super::heard::Heard;
use super::hello::hello;
use super::options::ClientOptions;
use crate::auth::SecretKey;
use crate::clock::Timestamp;
use crate::codec::{Codec, MSGPACK_SUBPROTOCOL};
use crate::protocol::{ErrorFrame, HelloAck};

/// Frames that may come before the `hello_ack`. More: the broker is broken.
const EARLY_FRAMES_MAX: usize = 4096;
/// Hellos signed in the same millisecond are the same, and one of them is then
/// refused as a replay.
const REPLAYS_MAX: u32 = 5;
const READ_BUFFER_BYTES: usize = 8 * 1024;
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// Code of a connection that ended without a close frame.
pub(crate) const NO_CLOSE_FRAME: u16 = 1006;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A session that the broker has accepted.
pub(crate) struct Opened {
    pub(crate) socket: Socket,
    pub(crate) ack: HelloAck,
    /// What came before the ack.
    pub(crate) early: Vec<Message>,
}

pub(crate) async fn open(
    url: &str,
    options: &ClientOptions,
    session_key: &SecretKey,
) -> Result<Opened, ClientError> {
    let mut replays = 0;
    loop {
        match open_once(url, options, session_key).await {
            Err(error) if error.code() == Some("replayed") && replays < REPLAYS_MAX => {
                replays += 1;
                let pause_ms = rand::random_range(1..20);
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            result => return result,
        }
    }
}

async fn open_once(
    url: &str,
    options: &ClientOptions,
    session_key: &SecretKey,
) -> Result<Opened, ClientError> {
    let limits = &options.limits;
    let connecting = connect(url, options.codec);
    let socket = tokio::time::timeout(limits.connect_timeout, connecting)
        .await
        .map_err(|_| ClientError::Timeout(limits.connect_timeout))??;
    let hello = hello(options, session_key, Timestamp::now());
    let frame = encode(options.codec, &hello)?;
    greet(socket, frame, options).await
}

/// Says hello on an open socket.
pub(crate) async fn greet(
    mut socket: Socket,
    frame: Message,
    options: &ClientOptions,
) -> Result<Opened, ClientError> {
    let limits = &options.limits;
    let greeting = async {
        socket.send(frame).await.map_err(|_| ClientError::Lost)?;
        greeted(&mut socket, options.codec).await
    };
    let (ack, early) = tokio::time::timeout(limits.hello_timeout, greeting)
        .await
        .map_err(|_| ClientError::Timeout(limits.hello_timeout))??;
    Ok(Opened { socket, ack, early })
}

/// Reads up to the `hello_ack`. Messages may come before it.
async fn greeted(
    socket: &mut Socket,
    codec: Codec,
) -> Result<(HelloAck, Vec<Message>), ClientError> {
    let mut early = Vec::new();
    while let Some(frame) = socket.next().await {
        let frame = frame.map_err(|_| ClientError::Lost)?;
        if let Some(Ok(heard)) = Heard::of(codec, &frame) {
            if heard.kind == "hello_ack"
                && let Ok(ack) = heard.read::<HelloAck>()
            {
                return Ok((ack, early));
            }
            if heard.kind == "error"
                && let Ok(error) = heard.read::<ErrorFrame>()
            {
                return Err(ClientError::Refused(Box::new(error)));
            }
        }
        if let Message::Close(close) = frame {
            let (code, reason) = close_reason(close);
            return Err(ClientError::Closed { code, reason });
        }
        if early.len() >= EARLY_FRAMES_MAX {
            return Err(ClientError::Unexpected("frames without a hello_ack".to_owned()));
        }
        early.push(frame);
    }
    Err(ClientError::Lost)
}

/// The code and reason of a close frame.
pub(crate) fn close_reason(
    close: Option<tokio_tungstenite::tungstenite::protocol::CloseFrame>,
) -> (u16, String) {
    close.map_or_else(
        || (1005, String::new()),
        |close| (close.code.into(), close.reason.as_str().to_owned()),
    )
}

/// A frame of that coding.
pub(crate) fn encode<T: serde::Serialize + ?Sized>(
    codec: Codec,
    value: &T,
) -> Result<Message, ClientError> {
    let bytes = codec.write(value).map_err(ClientError::Unexpected)?;
    match codec {
        Codec::Json => String::from_utf8(bytes)
            .map(Message::text)
            .map_err(|error| ClientError::Unexpected(error.to_string())),
        Codec::MsgPack => Ok(Message::binary(bytes)),
    }
}

/// A WebSocket that has said nothing yet.
pub(crate) async fn connect(url: &str, codec: Codec) -> Result<Socket, ClientError> {
    let address = || ClientError::Address(url.to_owned());
    let parsed = Url::parse(url).map_err(|_| address())?;
    if !matches!(parsed.scheme(), "ws" | "wss") {
        return Err(address());
    }
    let mut request = url.into_client_request().map_err(|_| address())?;
    if codec == Codec::MsgPack {
        let wanted = HeaderValue::from_static(MSGPACK_SUBPROTOCOL);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, wanted);
    }
    let tcp = dial(&parsed).await?;
    let connector = if parsed.scheme() == "wss" {
        Connector::Rustls(tls_config(url)?)
    } else {
        Connector::Plain
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES);
    let upgraded = client_async_tls_with_config(request, tcp, Some(config), Some(connector)).await;
    match upgraded {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Http(response)) => Err(http_refusal(&response)),
        Err(error) => {
            Err(ClientError::Unreachable { url: url.to_owned(), reason: error.to_string() })
        }
    }
}

fn http_refusal(
    response: &tokio_tungstenite::tungstenite::http::Response<Option<Vec<u8>>>,
) -> ClientError {
    let body = response.body().as_deref().unwrap_or_default();
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    ClientError::Http {
        status: response.status().as_u16(),
        message: if text.is_empty() { "no reason given".to_owned() } else { text },
    }
}

/// A TCP connection to a URL's host.
pub(super) async fn dial(url: &Url) -> Result<TcpStream, ClientError> {
    let port = url.port_or_known_default().unwrap_or(80);
    let dialled = match url.host() {
        Some(Host::Domain(name)) => TcpStream::connect((name, port)).await,
        Some(Host::Ipv4(ip)) => TcpStream::connect((ip, port)).await,
        Some(Host::Ipv6(ip)) => TcpStream::connect((ip, port)).await,
        None => return Err(ClientError::Address(url.to_string())),
    };
    let unreachable = |error: std::io::Error| ClientError::Unreachable {
        url: url.to_string(),
        reason: error.to_string(),
    };
    let tcp = dialled.map_err(unreachable)?;
    // Small frames, each of which somebody waits for.
    tcp.set_nodelay(true).map_err(unreachable)?;
    Ok(tcp)
}

/// TLS with the roots that browsers trust.
pub(super) fn tls_config(url: &str) -> Result<Arc<ClientConfig>, ClientError> {
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Unreachable {
            url: url.to_owned(),
            reason: error.to_string(),
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
