//! Frames as clients send them, and what comes back in MessagePack.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use claudemesh_broker::auth::{
    SecretKey, is_public_key, sign_attestation, sign_hello, sign_session_hello,
};
use claudemesh_broker::boxes;
use claudemesh_broker::client::Identity;
use claudemesh_broker::clock::Timestamp;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

/// A `hello` with the member's key alone, signed now.
pub(crate) fn hello_frame(identity: &Identity) -> Value {
    hello_frame_at(identity, fresh_now())
}

/// A `hello` signed at that instant.
pub(crate) fn hello_frame_at(identity: &Identity, now: Timestamp) -> Value {
    let (mesh, member) = (&identity.mesh, &identity.member);
    json!({
        "type": "hello",
        "meshId": mesh,
        "memberId": member,
        "pubkey": identity.member_pubkey(),
        "displayName": identity.display_name,
        "sessionId": claudemesh_broker::id::generate(),
        "pid": 4242,
        "cwd": "/tmp/raw",
        "timestamp": now.as_ms(),
        "signature": sign_hello(&identity.member_key, mesh, member, now),
    })
}

/// A `session_hello` signed now, from a client that confirms.
pub(crate) fn session_hello_frame(identity: &Identity, session: &SecretKey) -> Value {
    session_hello_frame_at(identity, session, fresh_now())
}

/// A `session_hello` signed at that instant.
pub(crate) fn session_hello_frame_at(
    identity: &Identity,
    session: &SecretKey,
    now: Timestamp,
) -> Value {
    let (parent, own) = (identity.member_pubkey(), session.public_key());
    let expires_at = now.plus_ms(12 * 60 * 60 * 1000);
    json!({
        "type": "session_hello",
        "meshId": identity.mesh,
        "parentMemberId": identity.member,
        "parentMemberPubkey": parent,
        "sessionPubkey": own,
        "parentAttestation": {
            "sessionPubkey": own,
            "parentMemberPubkey": parent,
            "expiresAt": expires_at.as_ms(),
            "signature": sign_attestation(&identity.member_key, &own, expires_at),
        },
        "displayName": identity.display_name,
        "sessionId": claudemesh_broker::id::generate(),
        "pid": 4242,
        "cwd": "/tmp/raw",
        "channel": "claudemesh-session",
        "timestamp": now.as_ms(),
        "signature": sign_session_hello(session, &identity.mesh, &parent, now),
    })
}

/// An instant near now at which nothing else of this process was signed: the
/// same signature twice is a replay.
pub(crate) fn fresh_now() -> Timestamp {
    static LAST_MS: AtomicI64 = AtomicI64::new(0);
    let now_ms = Timestamp::now().as_ms();
    let next = |last: i64| Some(now_ms.max(last + 1));
    let last_ms = LAST_MS
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .expect("there is always a next");
    Timestamp::from_ms(now_ms.max(last_ms + 1))
}

/// A `send`: sealed if the target is a key, else open.
pub(crate) fn send_frame(
    sender: &SecretKey,
    target: &str,
    id: &str,
    priority: &str,
    text: &str,
) -> Value {
    let sealed = if is_public_key(target) {
        boxes::seal(sender, &target.into(), text.as_bytes()).expect("sealed")
    } else {
        boxes::plain(text)
    };
    json!({
        "type": "send",
        "id": id,
        "targetSpec": target,
        "priority": priority,
        "nonce": sealed.nonce_b64,
        "ciphertext": sealed.ciphertext_b64,
    })
}

/// What a push says to `recipient`, sealed or open.
pub(crate) fn text_of(push: &Value, recipient: &SecretKey) -> Option<String> {
    let field = |name: &str| push[name].as_str().unwrap_or_default();
    let sender = field("senderPubkey").into();
    boxes::open(recipient, &sender, field("nonce"), field("ciphertext"))
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .or_else(|| boxes::open_plain(field("ciphertext")))
}

/// A MessagePack frame as JSON; bytes become `{"$bytes": <length>}`, so that a
/// test sees that they were bytes.
pub(crate) fn from_msgpack(bytes: &[u8]) -> Value {
    let Loose(frame) = rmp_serde::from_slice(bytes).expect("MessagePack from the broker");
    frame
}

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
        Ok(json!({ "$bytes": value.len() }))
    }
    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Loose(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Loose(value))) = entries.next_entry::<String, Loose>()? {
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}
