//! A raw socket that speaks MessagePack.

use std::fmt;

use claudemesh_broker::auth::SecretKey;
use claudemesh_broker::codec::MSGPACK_SUBPROTOCOL;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::raw::{hello_frame, session_hello_frame};
use super::{Member, Node, PATIENCE};

/// A WebSocket that speaks MessagePack.
pub struct Packed {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Packed {
    /// An active member connection.
    pub async fn hello(node: &Node, member: &Member) -> Self {
        Self::greet(node, &hello_frame(&node.mesh, member)).await
    }

    /// An active session connection.
    pub async fn session(node: &Node, member: &Member, session: &SecretKey) -> Self {
        Self::greet(node, &session_hello_frame(&node.mesh, member, session)).await
    }

    async fn greet(node: &Node, hello: &Value) -> Self {
        let mut request = node.url().into_client_request().expect("an address");
        let protocol = MSGPACK_SUBPROTOCOL.parse().expect("a header's value");
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (socket, response) = connect_async(request).await.expect("an upgrade");
        assert_eq!(response.headers()["sec-websocket-protocol"], MSGPACK_SUBPROTOCOL);
        let mut packed = Self { socket };
        packed.say(hello).await;
        packed.hear("hello_ack").await;
        packed
    }

    pub async fn say(&mut self, frame: &impl Serialize) {
        let bytes = rmp_serde::to_vec_named(frame).expect("a frame");
        self.socket.send(Message::binary(bytes)).await.expect("an open socket");
    }

    /// The next frame of that type; others are dropped. Bytes in it read
    /// `{"$bytes": "in hex"}`.
    pub async fn hear(&mut self, kind: &str) -> Value {
        let hearing = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        let frame = read(&bytes);
                        if frame["type"] == kind {
                            return frame;
                        }
                    }
                    Some(Ok(Message::Ping(_))) => {}
                    other => panic!("no {kind}: {other:?}"),
                }
            }
        };
        timeout(PATIENCE, hearing).await.unwrap_or_else(|_| panic!("no {kind} came"))
    }
}

fn read(bytes: &[u8]) -> Value {
    let Loose(frame) = rmp_serde::from_slice(bytes).expect("every frame is MessagePack");
    frame
}

/// JSON in which one sees what was bytes.
struct Loose(Value);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor).map(Self)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Value, E> {
        Ok(json!({ "$bytes": hex::encode(value) }))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Loose(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Loose(value))) = entries.next_entry::<String, Loose>()? {
            all.insert(key, value);
        }
        Ok(all.into())
    }
}
