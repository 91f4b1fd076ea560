//! What travels on the wire: closed types, one file per feature.
//!
//! These are never database rows. [`Ask`] is a request and names its [`Answer`]; the
//! few frames that are neither have structs of their own. How all of them become bytes
//! is the [`codec`](crate::codec)'s business. The prose is `docs/PROTOCOL.md`.

pub mod apikeys;
pub mod ask;
pub mod audit;
pub mod budget;
pub mod common_keys;
pub mod contexts;
pub mod delivery;
pub mod handshake;
pub mod mcp;
pub mod members;
pub mod memory;
pub mod mesh_info;
pub mod moderation;
pub mod peer_files;
pub mod presence;
pub mod rates;
pub mod relay;
pub mod schedules;
pub mod sim_clock;
pub mod skills;
pub mod stages;
pub mod state;
pub mod streams;
pub mod tasks;
pub mod topics;
pub mod vault;
pub mod webhooks;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use apikeys::{
    ApiCapability, ApikeyCreate, ApikeyCreated, ApikeyList, ApikeyListResponse, ApikeyRevoke,
    ApikeyRevokeResponse, ApikeyRevoked, ListedApikey, ShownOnce,
};
pub use ask::{Answer, Ask, Unasked};
pub use audit::{
    AUDIT_ROWS_DEFAULT, AuditQuery, AuditResult, AuditRow, AuditRowQuery, AuditRowResult,
    AuditVerify, AuditVerifyResult, SignedHead,
};
pub use common_keys::{
    CommonKey, CommonKeyResult, GetCommonKey, KeyCopy, MakeCommonKey, ShareCommonKey,
};
pub use contexts::{
    CONTEXT_KEY, ContextEntry, ContextList, ContextResults, ContextShared, GetContext,
    ListContexts, PeerContext, ShareContext,
};
pub use delivery::{
    Ack, Blob, ClientAck, MessageStatus, MessageStatusResult, Priority, Push, Recipient,
    RecipientStatus, Send, SystemEvent,
};
pub use handshake::{
    Attestation, Greeting, Hello, HelloAck, MemberProfile, MeshPolicy, RestoredStats, SessionHello,
    capability,
};
pub use mcp::{
    McpCall, McpCallForward, McpCallResponse, McpCallResult, McpList, McpListResult, McpRegister,
    McpRegisterAck, McpServerInfo, McpTool, McpUnregister,
};
pub use members::{ListMembers, MemberListed, MembersList, SealingPolicy};
pub use memory::{
    Forget, Memory, MemoryRecallResult, MemoryResults, MemoryStored, Recall, Remember,
};
pub use mesh_info::{MeshInfo, MeshInfoResult, TaskCounts};
pub use moderation::{
    Ban, BanAck, BanEntry, BansList, Disconnect, DisconnectAck, Kick, KickAck, KickRequest,
    ListBans, TargetRequest, Unban, UnbanAck,
};
pub use peer_files::{
    PeerDirRequest, PeerDirRequestForward, PeerDirResponse, PeerDirResponseForward,
    PeerFileRequest, PeerFileRequestForward, PeerFileResponse, PeerFileResponseForward,
};
pub use presence::{
    Group, JoinGroup, LeaveGroup, ListPeers, PeerInfo, PeerRole, PeersList, Profile, Said,
    SetProfile, SetStats, SetStatus, SetSummary, SetVisible, Stats, Status, StatusSource,
};
pub use rates::{Allowed, Budget, BudgetResult, Waiting};
pub use relay::{Expects, Forward, Reply, Ticket};
pub use schedules::{
    CancelScheduled, CancelScheduledAck, ListScheduled, Schedule, ScheduledAck, ScheduledList,
    ScheduledRow,
};
pub use sim_clock::{ClockStatus, GetClock, PauseClock, ResumeClock, SetClock, Speed};
pub use skills::{
    GetSkill, ListSkills, RemoveSkill, ShareSkill, Skill, SkillAck, SkillAction, SkillData,
    SkillEntry, SkillList,
};
pub use stages::{Reached, Stage, Withdraw, WithdrawResult};
pub use state::{
    DeleteState, GetState, ListState, SetState, StateChange, StateEntry, StateList, StateResult,
    StateValue,
};
pub use streams::{
    CreateStream, DeleteStream, ListStreams, Publish, StreamCreated, StreamData, StreamInfo,
    StreamList, Subscribe, Subscribed, Unsubscribe,
};
pub use tasks::{
    ClaimTask, CompleteTask, CreateTask, ListTasks, ReleaseTask, RenewTask, TaskCreated, TaskList,
    TaskRow, TaskStatus, UnwatchTasks, UpdateTask, WatchTasks,
};
pub use topics::{
    KeyMaker, TopicCreate, TopicCreated, TopicHistory, TopicHistoryResponse, TopicInvite,
    TopicJoin, TopicLeave, TopicList, TopicListResponse, TopicListed, TopicMarkRead,
    TopicMemberListed, TopicMembers, TopicMembersResponse, TopicNamed, TopicPosted, TopicRole,
    Visibility, names_mentioned,
};
pub use vault::{
    VaultAck, VaultAction, VaultDelete, VaultEntryType, VaultGet, VaultGetResult, VaultList,
    VaultListResult, VaultListed, VaultSealed, VaultSet,
};
pub use webhooks::{
    CreateWebhook, DeleteWebhook, ListWebhooks, WebhookAck, WebhookCalls, WebhookEvent,
    WebhookList, WebhookRow, WebhookSigning,
};

/// The only protocol version there is.
pub const PROTOCOL_VERSION: u32 = 1;

/// A request's correlation id: opaque, echoed verbatim.
///
/// Clients send strings; a number is echoed as a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RequestId {
    /// The usual form.
    Text(String),
    /// Tolerated.
    Number(i64),
}

impl RequestId {
    /// Whether it counts as given. An empty string or a zero does not: old
    /// clients send neither, and never look for them.
    #[must_use]
    pub fn is_given(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0,
        }
    }

    /// The form an `ack.id` takes where the id of a request stands in for it.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }
}

/// What this broker says beside the answers to requests.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The session is active.
    HelloAck(Box<HelloAck>),
    /// A send was taken or refused.
    Ack(Ack),
    /// Something was refused.
    Error(ErrorFrame),
    /// A message or a system event.
    Push(Box<Push>),
    /// A value of the shared state is otherwise.
    StateChange(Box<StateChange>),
    /// Somebody published to a stream.
    StreamData(Box<StreamData>),
}

/// `error`: a stable code, a sentence that says what to do.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ErrorFrame {
    /// Stable, for programs.
    pub code: Cow<'static, str>,
    /// A sentence, for people.
    pub message: String,
    /// The `id` of the send it answers, if it answers one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `capacity`: the mesh's cap; `quota`: how much the mesh may keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `capacity`: sockets open now; `quota`: how much there would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u32>,
    /// When a retry may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// `conflict`: what stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Box<serde_json::Value>>,
}

impl ErrorFrame {
    /// An error with a code and a sentence.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), ..Self::default() }
    }
}

/// What a socket is closed with. Close codes are API: `docs/PROTOCOL.md` says
/// for each whether a client should come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseReason {
    /// The WebSocket close code.
    pub code: u16,
    /// The reason text, stable for programs.
    pub reason: &'static str,
}

impl CloseReason {
    /// A newer socket of the same session took over. Reconnect: no.
    pub const SESSION_REPLACED: Self = Self::new(1000, "session_replaced");
    /// An admin ended the connection. Reconnect: yes.
    pub const DISCONNECTED: Self = Self::new(1000, "disconnected");
    /// As above, chosen by age. Reconnect: yes.
    pub const DISCONNECTED_STALE: Self = Self::new(1000, "disconnected_stale");
    /// The node stops. Reconnect: yes, to any node.
    pub const SHUTTING_DOWN: Self = Self::new(1001, "shutting down");
    /// Nothing was said in time after the upgrade. Reconnect: yes.
    pub const HELLO_TIMEOUT: Self = Self::new(1008, "hello_timeout");
    /// Bytes that are no WebSocket frames. Reconnect: no.
    pub const PROTOCOL_ERROR: Self = Self::new(1002, "protocol error");
    /// A text frame that is not UTF-8. Reconnect: no.
    pub const NOT_UTF8: Self = Self::new(1007, "not utf-8");
    /// Another member has proven that the session key is its own. Reconnect: with
    /// another key.
    pub const BAD_SESSION_PUBKEY: Self = Self::new(1008, "bad_session_pubkey");
    /// Too many frames that are no protocol. Reconnect: no.
    pub const MALFORMED: Self = Self::new(1008, "malformed");
    /// A frame over `MAX_MESSAGE_BYTES`. Reconnect: yes, with smaller frames.
    pub const TOO_LARGE: Self = Self::new(1009, "frame too large");
    /// An answer was larger than a socket's buffer. Reconnect: yes, and ask for
    /// less.
    pub const ANSWER_TOO_LARGE: Self = Self::new(1011, "answer_too_large");
    /// The reader took nothing for too long. Reconnect: yes; what was missed is
    /// queued.
    pub const SLOW_READER: Self = Self::new(1013, "slow_reader");
    /// The node cannot take new peers now. Reconnect: later.
    pub const TRY_AGAIN_LATER: Self = Self::new(1013, "try_again_later");
    /// The member opens new presences faster than it may. Reconnect: later.
    pub const RATE_LIMIT: Self = Self::new(1013, "rate_limit");
    /// An admin removed the session. Reconnect: no.
    pub const KICKED: Self = Self::new(4001, "kicked");
    /// As above, chosen by age. Reconnect: no.
    pub const KICKED_STALE: Self = Self::new(4001, "kicked_stale");
    /// The member was banned. Reconnect: no.
    pub const BANNED: Self = Self::new(4002, "banned");

    /// All of them: what may cross the bus by code and reason.
    const ALL: [Self; 17] = [
        Self::SESSION_REPLACED,
        Self::DISCONNECTED,
        Self::DISCONNECTED_STALE,
        Self::SHUTTING_DOWN,
        Self::HELLO_TIMEOUT,
        Self::PROTOCOL_ERROR,
        Self::NOT_UTF8,
        Self::BAD_SESSION_PUBKEY,
        Self::MALFORMED,
        Self::TOO_LARGE,
        Self::ANSWER_TOO_LARGE,
        Self::SLOW_READER,
        Self::TRY_AGAIN_LATER,
        Self::RATE_LIMIT,
        Self::KICKED,
        Self::KICKED_STALE,
        Self::BANNED,
    ];

    /// A code with its reason.
    #[must_use]
    pub const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }

    /// Whether it says that what was read cannot be read on.
    #[must_use]
    pub fn is_offence(self) -> bool {
        [Self::PROTOCOL_ERROR, Self::NOT_UTF8, Self::TOO_LARGE].contains(&self)
    }

    /// A refused hello: 1008 with the error's code as reason.
    #[must_use]
    pub const fn refused(code: &'static str) -> Self {
        Self::new(1008, code)
    }

    /// The known reason with this text, as another node named it.
    #[must_use]
    pub fn by_reason(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.reason == reason)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.code, self.reason)
    }
}
