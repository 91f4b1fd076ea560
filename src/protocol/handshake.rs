//! `hello` and `session_hello`, and what answers them.

use serde::{Deserialize, Deserializer, Serialize};

use super::audit::SignedHead;
use super::presence::Group;
use crate::clock::Timestamp;

/// The first word on a connection.
#[derive(Clone, Debug)]
pub enum Greeting {
    /// A member's own key.
    Member(Box<Hello>),
    /// A per-launch key.
    Session(Box<SessionHello>),
}

/// `hello`: the member's own key signs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "HelloFields")]
pub struct Hello {
    /// The mesh to enter: its id, not its slug.
    pub mesh_id: String,
    /// The member's id; must belong to the member with `pubkey`.
    pub member_id: String,
    /// The member's key.
    pub pubkey: String,
    /// A key made for this process. Not proven, so it takes nothing over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_pubkey: Option<serde_json::Value>,
    /// Whether it comes for one thing only. Old clients do not say, and are known
    /// by their channel.
    #[serde(default, deserialize_with = "lenient_flag", skip_serializing_if = "Option::is_none")]
    pub visit: Option<bool>,
    /// What the session and the machine call themselves.
    #[serde(flatten)]
    pub about: About,
    /// Unix milliseconds when this was signed.
    pub timestamp: f64,
    /// Over `meshId|memberId|pubkey|timestamp`: 128 hex digits.
    pub signature: String,
}

/// `session_hello`: a per-launch key, vouched for by the member.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "SessionHelloFields")]
pub struct SessionHello {
    /// The mesh to enter.
    pub mesh_id: String,
    /// The member's id, checked if given.
    pub parent_member_id: String,
    /// The member's key.
    pub parent_member_pubkey: String,
    /// The session's key.
    pub session_pubkey: String,
    /// The member's signature over the session's key.
    pub parent_attestation: Option<Attestation>,
    /// What the session and the machine call themselves.
    #[serde(flatten)]
    pub about: About,
    /// Unix milliseconds when this was signed.
    pub timestamp: f64,
    /// By the session key: 128 hex digits.
    pub signature: String,
}

/// The part that both forms of hello share; nothing of it is proven.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Overrides the member's name for this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The client's own name for the session.
    pub session_id: String,
    /// The peer's process; 0 if missing or odd.
    pub pid: i32,
    /// The peer's working directory; empty if missing.
    pub cwd: String,
    /// The peer's machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human`, `connector`, `bridge` ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// The client program, which decides who confirms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The model that the session runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Groups to start in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// What the client asks for beyond what every client gets; words that the broker does
    /// not know are passed over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

impl About {
    /// Whether the client asks for that capability.
    #[must_use]
    pub fn asks_for(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|asked| asked == capability)
    }
}

/// What clients may ask for in `capabilities`, and `features` offers.
pub mod capability {
    /// How far messages are: receipts, and what becomes of messages that never come.
    pub const STAGES: &str = "stages";
    /// The age and the validity of messages. Every client gets these fields.
    pub const FRESHNESS: &str = "freshness";
    /// How many answers led to a message. Every client gets the field.
    pub const HOPS: &str = "hops";
    /// The client keeps what its session is too busy for: the broker holds nothing for it.
    pub const HOLDS: &str = "holds";
    /// The client opens messages to many that are sealed; without it gets none of them.
    pub const SEALED_MULTICAST: &str = "sealed_multicast";
    /// All of them.
    pub const ALL: [&str; 5] = [STAGES, FRESHNESS, HOPS, HOLDS, SEALED_MULTICAST];
}

/// A hello as it is read, its fields side by side: `flatten` would first keep
/// every field that it does not know, and refuse the hello for one that it cannot
/// keep.
macro_rules! fields_of_hello {
    ($fields:ident => $hello:ident {
        $($(#[$meta:meta])* $field:ident: $kind:ty,)*
    }) => {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct $fields {
            $($(#[$meta])* $field: $kind,)*
            #[serde(default)]
            display_name: Option<String>,
            #[serde(default, deserialize_with = "lenient_text")]
            session_id: String,
            #[serde(default, deserialize_with = "lenient_pid")]
            pid: i32,
            #[serde(default, deserialize_with = "lenient_text")]
            cwd: String,
            #[serde(default)]
            hostname: Option<String>,
            #[serde(default)]
            peer_type: Option<String>,
            #[serde(default)]
            channel: Option<String>,
            #[serde(default)]
            model: Option<String>,
            #[serde(default)]
            groups: Option<Vec<Group>>,
            #[serde(default, deserialize_with = "lenient_words")]
            capabilities: Vec<String>,
        }

        impl From<$fields> for $hello {
            fn from(fields: $fields) -> Self {
                let $fields {
                    $($field,)*
                    display_name,
                    session_id,
                    pid,
                    cwd,
                    hostname,
                    peer_type,
                    channel,
                    model,
                    groups,
                    capabilities,
                } = fields;
                let about = About {
                    display_name,
                    session_id,
                    pid,
                    cwd,
                    hostname,
                    peer_type,
                    channel,
                    model,
                    groups,
                    capabilities,
                };
                Self { $($field,)* about }
            }
        }
    };
}

fields_of_hello!(HelloFields => Hello {
    #[serde(default, deserialize_with = "lenient_text")]
    mesh_id: String,
    #[serde(default, deserialize_with = "lenient_text")]
    member_id: String,
    #[serde(default, deserialize_with = "lenient_text")]
    pubkey: String,
    #[serde(default)]
    session_pubkey: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "lenient_flag")]
    visit: Option<bool>,
    #[serde(default = "missing_number", deserialize_with = "lenient_number")]
    timestamp: f64,
    #[serde(default, deserialize_with = "lenient_text")]
    signature: String,
});

fields_of_hello!(SessionHelloFields => SessionHello {
    #[serde(default, deserialize_with = "lenient_text")]
    mesh_id: String,
    #[serde(default, deserialize_with = "lenient_text")]
    parent_member_id: String,
    #[serde(default, deserialize_with = "lenient_text")]
    parent_member_pubkey: String,
    #[serde(default, deserialize_with = "lenient_text")]
    session_pubkey: String,
    #[serde(default, deserialize_with = "lenient_attestation")]
    parent_attestation: Option<Attestation>,
    #[serde(default = "missing_number", deserialize_with = "lenient_number")]
    timestamp: f64,
    #[serde(default, deserialize_with = "lenient_text")]
    signature: String,
});

/// A member's word that a session key is its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// Must be the outer one.
    #[serde(default, deserialize_with = "lenient_text")]
    pub session_pubkey: String,
    /// Must be the outer one.
    #[serde(default, deserialize_with = "lenient_text")]
    pub parent_member_pubkey: String,
    /// Unix milliseconds, at most 24 hours ahead.
    #[serde(default = "missing_number", deserialize_with = "lenient_number")]
    pub expires_at: f64,
    /// By the member's key: 128 hex digits.
    #[serde(default, deserialize_with = "lenient_text")]
    pub signature: String,
}

/// `hello_ack`: the session is active.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloAck {
    /// This session's presence; the same after a reattach.
    pub presence_id: String,
    /// The member's name (not the session's).
    pub member_display_name: String,
    /// Absent on a reattach by `session_hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_profile: Option<MemberProfile>,
    /// What members may edit about themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_policy: Option<MeshPolicy>,
    /// `true` if an earlier session's state was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    /// With `restored`: the last summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_summary: Option<String>,
    /// With `restored`: when the member was last here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
    /// With `restored`, if hello named no groups: the groups restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_groups: Option<Vec<Group>>,
    /// With `restored`: counters to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_stats: Option<RestoredStats>,
    /// `hello` only. Always empty: this broker runs no services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<serde_json::Value>>,
    /// The node that holds the socket.
    pub node: String,
    /// The node's region, if it knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// How long the presence outlives a lost socket, milliseconds.
    pub lease_ttl_ms: u64,
    /// Always 1.
    pub protocol_version: u32,
    /// What `capabilities` may ask for.
    #[serde(default)]
    pub features: Vec<std::borrow::Cow<'static, str>>,
    /// The newest signed head of the mesh's audit chain, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_head: Option<Box<SignedHead>>,
}

/// What the mesh knows of the member.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberProfile {
    /// A label that admins give.
    pub role_tag: Option<String>,
    /// Groups that a new session starts in.
    pub groups: Vec<Group>,
    /// `push`, `inbox` or `off`; read by clients only.
    pub message_mode: String,
}

/// The mesh's policy, as clients read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshPolicy {
    /// The own fields that a member may edit.
    pub self_editable: serde_json::Value,
}

/// Counters over a member's earlier sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoredStats {
    /// Messages received.
    pub messages_in: f64,
    /// Messages sent.
    pub messages_out: f64,
    /// Tool calls made.
    pub tool_calls: f64,
    /// Errors seen.
    pub errors: f64,
}

/// The channel of one-shot commands, which never say that they visit.
const COMMANDS: &str = "claude-code";

impl Hello {
    /// Whether this connection is a visit: by its own word, else if it is an old
    /// client's command. `has_session_key` as it was read.
    #[must_use]
    pub fn is_visit(&self, has_session_key: bool) -> bool {
        let is_command = || has_session_key && self.about.channel.as_deref() == Some(COMMANDS);
        self.visit.unwrap_or_else(is_command)
    }
}

/// Of a list the texts; anything else says nothing.
fn lenient_words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let serde_json::Value::Array(words) = serde_json::Value::deserialize(deserializer)? else {
        return Ok(Vec::new());
    };
    let text = |word| match word {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    };
    Ok(words.into_iter().filter_map(text).collect())
}

/// Anything but true or false was not said.
fn lenient_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(serde_json::Value::deserialize(deserializer)?.as_bool())
}

fn missing_number() -> f64 {
    f64::NAN
}

/// Anything but a finite number becomes NaN, which no check accepts.
fn lenient_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_f64().unwrap_or(f64::NAN))
}

fn lenient_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Number(number) => number.to_string(),
        _ => String::new(),
    })
}

/// Anything but an attestation is none.
fn lenient_attestation<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Attestation>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

fn lenient_pid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0))
}
