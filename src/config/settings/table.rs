//! The table itself, in the order in which it is printed.

use super::{Privacy, Setting};

/// Every variable the broker reads.
pub const SETTINGS: &[Setting] = &[
    // Where it listens.
    open("BROKER_BIND", "", "address to listen on; not set: [::], or 0.0.0.0 without IPv6"),
    open("BROKER_PORT", "7900", "port to listen on; 0 takes a free one"),
    url(
        "BROKER_WS_URL",
        "",
        "the ws:// or wss:// URL that invites carry; not set: ws://localhost:<port>/ws",
    ),
    // Where it keeps what it must not lose.
    open(
        "CLAUDEMESH_DATA_DIR",
        "",
        "folder of the SQLite file; not set: the platform's data folder",
    ),
    url(
        "DATABASE_URL",
        "",
        "postgres://user:password@host/database or sqlite://path; not set: SQLite in that folder",
    ),
    open("DATABASE_POOL_MAX", "10", "connections to Postgres of this node, 2 to 500"),
    open(
        "DATABASE_STATEMENT_CACHE",
        "100",
        "prepared statements kept per Postgres connection, 0 to 10000; 0 behind PgBouncer",
    ),
    url(
        "REDIS_URL",
        "",
        "redis:// or rediss:// URL; makes this node one of a cluster, which needs Postgres too",
    ),
    open("REDIS_CLUSTER", "false", "true when REDIS_URL points to a Redis Cluster"),
    open(
        "REDIS_TLS_CA_FILE",
        "",
        "PEM file of the authorities to trust for rediss://; not set: the well-known ones",
    ),
    secret(
        "CLUSTER_SECRET",
        "what nodes sign by in Redis; two during a rotation; not set, or postgres: a key in Postgres",
    ),
    // Who it is.
    open(
        "NODE_ID",
        "",
        "this node's name, unique in the cluster; not set: FLY_MACHINE_ID, or host name and port",
    ),
    open("REGION", "", "this node's region, as others see it; not set: FLY_REGION"),
    open("FLY_MACHINE_ID", "", "set by Fly.io; the node's name when NODE_ID is not set"),
    open("FLY_REGION", "", "set by Fly.io; the region when REGION is not set"),
    open("FLY_APP_NAME", "", "set by Fly.io; its presence makes the broker trust Fly-Client-IP"),
    // Presence.
    open(
        "MAX_CONNECTIONS_PER_MESH",
        "100",
        "sessions of one mesh at a time in the whole cluster, 1 to 1000000",
    ),
    open(
        "LEASE_GRACE_SECONDS",
        "90",
        "how long a session that lost its socket keeps its place, 0 to 86400",
    ),
    open(
        "LEASE_TTL_SECONDS",
        "45",
        "after how long a dead node's sessions count as lost, 0.1 to 3600",
    ),
    open("PING_INTERVAL_SECONDS", "25", "pause between pings to each peer, 0.05 to 3600"),
    open(
        "STATUS_TTL_SECONDS",
        "60",
        "after how long a working status set by a hook decays to idle, 0.1 to 86400",
    ),
    open(
        "HOOK_FRESH_WINDOW_SECONDS",
        "30",
        "how long a hook's status outranks weaker sources, 0.1 to 86400",
    ),
    open(
        "TRANSCRIPT_STATUS",
        "auto",
        "infer status from transcripts on this machine: on, off, auto (a single node on loopback)",
    ),
    // Messages.
    open("MAX_MESSAGE_BYTES", "65536", "largest frame and request body in bytes, 512 to 262144"),
    open(
        "SEND_RATE_PER_MINUTE",
        "600",
        "sends of one member per minute in the whole cluster; 0 turns the limit off",
    ),
    open("SEND_BURST", "100", "sends that a member may make at once, 1 to 1000000"),
    open(
        "PAIR_RATE_PER_MINUTE",
        "120",
        "sends of one member to one other per minute in the whole cluster; 0 turns the limit off",
    ),
    open("PAIR_BURST", "60", "sends that a member may make to one other at once, 1 to 1000000"),
    open(
        "MULTICAST_RATE_PER_MINUTE",
        "120",
        "sends of one member to groups, topics and everyone per minute in the whole cluster; 0 \
         turns the limit off",
    ),
    open("MULTICAST_BURST", "40", "sends to many that a member may make at once, 1 to 1000000"),
    open(
        "REQUEST_RATE_PER_MINUTE",
        "12000",
        "cost of what one member asks per minute in the whole cluster; 0 turns the limit off",
    ),
    open("REQUEST_BURST", "6000", "cost of what a member may ask at once, 100 to 1000000"),
    open(
        "REDELIVERY_SECONDS",
        "30",
        "after how long an unconfirmed delivery is offered again, 0.05 to 3600",
    ),
    open(
        "HOPS_MAX",
        "16",
        "answers that may lead to a message, one to the other; 0 turns the limit off",
    ),
    open("DELIVERED_RETENTION_HOURS", "24", "how long a delivered message is kept, 0 to 8760"),
    open(
        "TOPIC_RETENTION_DAYS",
        "365",
        "days that what was said in a topic is kept, 0 to 36500; 0 keeps it for good",
    ),
    open(
        "MAILBOX_MESSAGES_MAX",
        "10000",
        "messages that may wait for one recipient; 0 turns the limit off",
    ),
    open(
        "MAILBOX_BYTES_MAX",
        "67108864",
        "bytes that may wait for one recipient; 0 turns the limit off",
    ),
    open(
        "SENDER_WAITING_BYTES_MAX",
        "268435456",
        "bytes of one member's messages that may wait in a mesh; 0 turns the limit off",
    ),
    open(
        "MESH_WAITING_BYTES_MAX",
        "1073741824",
        "bytes that may wait in one mesh; 0 turns the limit off",
    ),
    open(
        "DISK_FREE_MIN_MB",
        "256",
        "MiB free on the data folder's disk below which nothing new is taken; 0 turns it off",
    ),
    // HTTP and admission.
    open(
        "MAX_CONNECTIONS_PER_IP",
        "200",
        "sockets of one client address on this node; 0 turns the limit off",
    ),
    open(
        "HELLO_RATE_PER_MINUTE",
        "300",
        "upgrades and joins of one client address per minute; 0 turns the limit off",
    ),
    open(
        "HOOK_RATE_LIMIT_PER_MIN",
        "30",
        "status hooks of one process and folder per minute, 1 to 100000",
    ),
    open(
        "TRUSTED_PROXIES",
        "",
        "networks whose X-Forwarded-For is believed, such as 10.0.0.0/8,fd00::/8",
    ),
    open(
        "ALLOWED_ORIGINS",
        "",
        "origins of web pages that may connect, such as https://app.example.org; not set: any",
    ),
    open(
        "OWN_HOSTS",
        "",
        "names of the broker's own pages besides that of BROKER_WS_URL, such as mesh.internal",
    ),
    secret(
        "HOOK_TOKEN",
        "bearer token of status hooks, from this machine too; two during a rotation; not set: loopback, and from beside the session",
    ),
    secret(
        "ADMIN_TOKEN",
        "bearer token of the admin API and the dashboard; two during a rotation; not set: both off",
    ),
    // Accounts.
    open(
        "ACCOUNTS",
        "auto",
        "accounts and the command line's routes for them: on, off, auto (a single node on loopback)",
    ),
    secret(
        "SERVICE_TOKEN",
        "bearer token of a web application that signs people in; two during a rotation; not set: off",
    ),
    open(
        "BROKER_LEGACY_AUTH",
        "false",
        "true to believe a caller on this machine which account it is, as old self-tests want",
    ),
    // The audit chain.
    secret(
        "AUDIT_KEY",
        "key of audit heads, 64 hex digits or the path of a file; kept away from the database; not set: heads are not signed",
    ),
    open(
        "AUDIT_HEAD_ROWS",
        "1000",
        "after how many rows of an audit chain a node with AUDIT_KEY signs where it ends, 1 to 1000000",
    ),
    open(
        "AUDIT_HEAD_SECONDS",
        "600",
        "after how long it does so in any case, if the chain has grown, 0.1 to 86400",
    ),
    // Webhooks.
    url(
        "BROKER_PUBLIC_URL",
        "",
        "the http:// or https:// URL that webhooks carry; not set: that beside BROKER_WS_URL",
    ),
    open(
        "WEBHOOK_ALLOW_PRIVATE",
        "false",
        "true to let webhooks call addresses of private networks, such as 10.0.0.0/8",
    ),
    // Stopping and logging.
    open("DRAIN_SECONDS", "25", "how long a stopping node takes to send its peers away, 0 to 3600"),
    open("LOG_FORMAT", "", "human or json; not set: human on a terminal, json elsewhere"),
    open("LOG", "", "log filter such as info,claudemesh_broker=debug; not set: RUST_LOG"),
    open("RUST_LOG", "info", "log filter when LOG is not set"),
];

const fn open(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning, privacy: Privacy::Open }
}

const fn url(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning, privacy: Privacy::Url }
}

const fn secret(name: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default: "", meaning, privacy: Privacy::Secret }
}
