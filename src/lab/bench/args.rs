//! What `bench` can be asked for.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::codec::Codec;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Peers send to each other: throughput, latency
    Direct(DirectArgs),
    /// A few send to everyone
    Fanout(FanoutArgs),
    /// Everybody connects at once: hellos per second
    Connect(ConnectArgs),
    /// A node is killed and all its peers come back at once: how long until the last is there
    Failover(FailoverArgs),
    /// Sockets that do nothing: memory and CPU for each
    Idle(IdleArgs),
    /// Peers come and go while messages for them go round
    Churn(ChurnArgs),
    /// Many meshes, direct messages and multicasts together
    Mixed(MixedArgs),
    /// What a mesh shares: requests per second
    Features(FeaturesArgs),
    /// From a message's ack until the model of a coding session has it
    Surface(SurfaceArgs),
    /// The floor: a relay that promises nothing
    #[command(hide = true)]
    Relay,
    /// The stand-in for the host of one coding session
    #[command(hide = true)]
    Host(HostArgs),
}

/// Against what, and what becomes of the figures.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// A broker that is running, ws:// or wss://; several: peers take turns
    #[arg(long = "url", value_name = "URL", conflicts_with_all = ["cluster", "postgres", "embedded"])]
    pub(crate) urls: Vec<String>,
    /// With --url: join by this invite, one for each mesh; without: enrol in the configured store
    #[arg(long = "invite", value_name = "LINK", requires = "urls")]
    pub(crate) invites: Vec<String>,
    /// With --url: members of an earlier run; written if it does not exist
    #[arg(long, value_name = "FILE", requires = "urls")]
    pub(crate) mesh_file: Option<PathBuf>,
    /// With --url: the broker's process on this machine, to measure its CPU and memory
    #[arg(long = "pid", value_name = "PID", requires = "urls")]
    pub(crate) pids: Vec<u32>,
    /// Start a broker of its own, on SQLite in a temporary folder (the default)
    #[arg(long)]
    pub(crate) embedded: bool,
    /// The broker of its own keeps its data in DATABASE_URL (Postgres) instead
    #[arg(long, conflicts_with = "cluster")]
    pub(crate) postgres: bool,
    /// Start that many nodes on DATABASE_URL and REDIS_URL
    #[arg(long, value_name = "NODES", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=32))]
    pub(crate) cluster: Option<usize>,
    /// Where the temporary folder is made; a disk, if commits are to cost what they cost
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A setting for the broker of its own; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Measure the plainest relay too, alternating, and give the ratio to it
    #[arg(long)]
    pub(crate) floor: bool,
    /// How often; the median is reported (default: 1, with --floor 3)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,
    /// How frames are coded
    #[arg(long, value_enum, default_value_t = CodecArg::Json)]
    pub(crate) codec: CodecArg,
    /// Peers do not confirm what they get, as old clients do not
    #[arg(long)]
    pub(crate) no_confirm: bool,
    /// Give up when nothing has come for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) patience: u64,
    /// Write figures and plots to this file, as one HTML page
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// JSON or MessagePack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecArg {
    /// Text frames
    Json,
    /// Binary frames
    Msgpack,
}

impl From<CodecArg> for Codec {
    fn from(arg: CodecArg) -> Self {
        match arg {
            CodecArg::Json => Self::Json,
            CodecArg::Msgpack => Self::MsgPack,
        }
    }
}

/// How messages are made and sent.
#[derive(Clone, Debug, Args)]
pub(crate) struct Pace {
    /// Bytes of each message before it is sealed
    #[arg(long, default_value_t = 200, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(16..=32_768))]
    pub(crate) bytes: usize,
    /// Sends of each sender that are not acked yet, at most
    #[arg(long, default_value_t = 16, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub(crate) in_flight: usize,
    /// Messages per second of all senders together, whatever is acked; latencies count from when
    /// each should have been sent
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,
    /// Send without idempotence keys
    #[arg(long)]
    pub(crate) no_keys: bool,
}

/// `bench direct`.
#[derive(Debug, Args)]
pub(crate) struct DirectArgs {
    /// Peers, each a sender and a recipient
    #[arg(long, default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=100_000))]
    pub(crate) peers: usize,
    /// Messages of each peer
    #[arg(long, default_value_t = 1000)]
    pub(crate) messages: u32,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `bench fanout`.
#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    /// Peers that send to everyone
    #[arg(long, default_value_t = 1)]
    pub(crate) senders: usize,
    /// Sockets that get it all
    #[arg(long, default_value_t = 1000)]
    pub(crate) receivers: usize,
    /// Seals each message for all of them, as our client does
    #[arg(long, conflicts_with = "floor")]
    pub(crate) sealed: bool,
    /// Messages of each sender
    #[arg(long, default_value_t = 300)]
    pub(crate) messages: u32,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `bench connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Sockets
    #[arg(long, default_value_t = 1000)]
    pub(crate) sockets: usize,
    /// Meshes that they belong to
    #[arg(long, default_value_t = 20)]
    pub(crate) meshes: usize,
    /// Connections under way at once
    #[arg(long, default_value_t = 1000)]
    pub(crate) at_once: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `bench failover`.
#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// Sockets of the node that is killed
    #[arg(long, default_value_t = 1000)]
    pub(crate) sockets: usize,
    /// Meshes that they belong to
    #[arg(long, default_value_t = 20)]
    pub(crate) meshes: usize,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `bench idle`.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// Sockets
    #[arg(long, default_value_t = 10_000)]
    pub(crate) sockets: usize,
    /// Meshes that they belong to
    #[arg(long, default_value_t = 100)]
    pub(crate) meshes: usize,
    /// How long CPU is measured
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `bench churn`.
#[derive(Debug, Args)]
pub(crate) struct ChurnArgs {
    /// Peers
    #[arg(long, default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=10_000))]
    pub(crate) peers: usize,
    /// How often each comes and goes
    #[arg(long, default_value_t = 20)]
    pub(crate) cycles: u32,
    /// Messages of each peer and cycle, to one that may be away
    #[arg(long, default_value_t = 5)]
    pub(crate) messages: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `bench mixed`.
#[derive(Debug, Args)]
pub(crate) struct MixedArgs {
    /// Meshes
    #[arg(long, default_value_t = 100)]
    pub(crate) meshes: usize,
    /// Peers of each mesh
    #[arg(long, default_value_t = 4, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=1000))]
    pub(crate) peers: usize,
    /// Messages of each peer
    #[arg(long, default_value_t = 100)]
    pub(crate) messages: u32,
    /// Every how-manieth message is to everyone; 0: none
    #[arg(long, default_value_t = 10)]
    pub(crate) multicast_every: u32,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `bench features`.
#[derive(Debug, Args)]
pub(crate) struct FeaturesArgs {
    /// What is asked for
    #[arg(value_enum)]
    pub(crate) feature: Feature,
    /// Peers; with state-change one of them writes and the others are told
    #[arg(long, default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..=100_000))]
    pub(crate) peers: usize,
    /// Meshes that they belong to; with state-change it is one
    #[arg(long, default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub(crate) meshes: usize,
    /// Requests of each peer that asks
    #[arg(long, default_value_t = 1000)]
    pub(crate) requests: u32,
    /// Requests of each peer that are not answered yet, at most
    #[arg(long, default_value_t = 4, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub(crate) in_flight: usize,
    /// Bytes of each value
    #[arg(long, default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=32_000))]
    pub(crate) bytes: usize,
    /// Memories, scheduled messages or posts that all meshes keep together
    #[arg(long, default_value_t = 100_000)]
    pub(crate) rows: u32,
    /// With schedules: how long CPU is measured without them, and with them
    #[arg(long, default_value_t = 30)]
    pub(crate) seconds: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `bench surface`.
#[derive(Debug, Args)]
pub(crate) struct SurfaceArgs {
    /// What the sessions are at; may be repeated (default: all, one after the other)
    #[arg(long = "state", value_enum)]
    pub(crate) states: Vec<SessionState>,
    /// Coding sessions at once, each with a host of its own
    #[arg(long, default_value_t = 4, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub(crate) sessions: usize,
    /// Messages to each session in each state
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) messages: u32,
    /// From the end of an idle session's turn until the next message to it
    #[arg(long, value_name = "MS", default_value_t = 2500)]
    pub(crate) pause: u64,
    #[command(flatten)]
    pub(crate) work: HostWork,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What the stand-in for a host does while its session is busy.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct HostWork {
    /// How long each tool of a busy session runs
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) tool: u64,
    /// Tools of each turn of a busy session, one after the other
    #[arg(long, value_name = "TOOLS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) turn: u32,
}

/// `bench host`.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// What the session is at
    #[arg(long, value_enum)]
    pub(crate) state: SessionState,
    /// The host's id of its session
    #[arg(long)]
    pub(crate) session: String,
    /// Where the session's inbox may be made
    #[arg(long)]
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) work: HostWork,
}

/// What a coding session is at while messages for it come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SessionState {
    /// Idle, and its host listens to the channel
    Channel,
    /// Idle, with an inbox that the doorbell rings; its host calls the hook of the turn's start
    Inbox,
    /// The same where the host calls no such hook: its model calls check_messages
    InboxAsked,
    /// Busy, and the messages are sent as now: for its next hook
    BusyNow,
    /// Busy, and the messages are sent as next: for the end of its turn
    BusyNext,
}

impl SessionState {
    pub(super) const ALL: [Self; 5] =
        [Self::Channel, Self::Inbox, Self::InboxAsked, Self::BusyNow, Self::BusyNext];

    /// The word by which it is asked for.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Inbox => "inbox",
            Self::InboxAsked => "inbox-asked",
            Self::BusyNow => "busy-now",
            Self::BusyNext => "busy-next",
        }
    }

    /// Whether the session works all the time.
    pub(super) const fn is_busy(self) -> bool {
        matches!(self, Self::BusyNow | Self::BusyNext)
    }

    /// Whether the host has an inbox for its session.
    pub(super) const fn has_inbox(self) -> bool {
        matches!(self, Self::Inbox | Self::InboxAsked)
    }
}

/// What of a mesh's shared things is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Feature {
    /// Writes to shared state
    SetState,
    /// Reads of shared state
    GetState,
    /// A write of which all others are told; --floor compares with a relayed message
    StateChange,
    /// Searches in what meshes remember
    Recall,
    /// What messages cost that wait for their time
    Schedules,
    /// Pages of a topic's history; --rows posts
    History,
}

/// How many meshes, sockets, members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) meshes: usize,
    /// Sockets of each mesh.
    pub(super) peers: usize,
    pub(super) sessions_per_member: usize,
}

impl Size {
    /// Members of each mesh.
    pub(super) fn members(self) -> usize {
        self.peers.div_ceil(self.sessions_per_member.max(1)).max(1)
    }
}
