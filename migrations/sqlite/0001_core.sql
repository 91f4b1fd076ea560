-- Meshes, members, invites, presences, the queue, the audit chain.
--
-- Table and column names are those of the schema `mesh` in Postgres. Times are
-- whole milliseconds since the Unix epoch; booleans 0 or 1; JSON is text.

create table mesh (
    id text primary key not null,
    name text not null,
    slug text not null,
    owner_user_id text,
    owner_pubkey text,
    owner_secret_key text,
    root_key text,
    self_editable text not null
        default '{"displayName":true,"roleTag":true,"groups":true,"messageMode":true}',
    created_at integer not null,
    archived_at integer
) strict;

create index mesh_slug_idx on mesh (slug);

create table member (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    user_id text,
    peer_pubkey text not null,
    display_name text not null,
    role text not null default 'member' check (role in ('admin', 'member')),
    role_tag text,
    default_groups text not null default '[]',
    message_mode text not null default 'push',
    joined_at integer not null,
    revoked_at integer,
    peer_grants text not null default '{}'
) strict;

-- Not unique: a key that was banned and enrolled again has two rows.
create index member_mesh_key_idx on member (mesh_id, peer_pubkey);

create table presence (
    id text primary key not null,
    member_id text not null references member (id) on delete cascade,
    session_id text not null,
    session_pubkey text,
    display_name text,
    pid integer not null,
    cwd text not null,
    status text not null default 'idle' check (status in ('idle', 'working', 'dnd')),
    status_source text not null default 'jsonl'
        check (status_source in ('hook', 'manual', 'jsonl')),
    status_updated_at integer not null,
    summary text,
    groups text not null default '[]',
    role text not null default 'session'
        check (role in ('control-plane', 'session', 'service')),
    connected_at integer not null,
    last_ping_at integer not null,
    disconnected_at integer,
    -- Every multicast of the mesh up to this `seq` is done with.
    multicast_position integer not null default 0,
    -- The node that held it last.
    node text,
    -- hostname, peerType, channel, model, visible, profile, stats
    attributes text not null default '{}'
) strict;

create index presence_session_key_idx on presence (session_pubkey)
    where session_pubkey is not null;
create index presence_open_member_idx on presence (member_id) where disconnected_at is null;
create index presence_open_cwd_idx on presence (cwd) where disconnected_at is null;
create index presence_open_ping_idx on presence (last_ping_at) where disconnected_at is null;

create table message_queue (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    sender_member_id text not null references member (id) on delete cascade,
    sender_session_pubkey text,
    sender_name text,
    target_spec text not null,
    priority text not null default 'next' check (priority in ('now', 'next', 'low')),
    nonce text not null,
    ciphertext text not null,
    created_at integer not null,
    -- A multicast has it from the start: whom it is for is decided by the
    -- positions of the presences.
    delivered_at integer,
    client_message_id text,
    request_fingerprint text,
    reply_to_id text,
    claimed_at integer,
    claim_id text,
    claim_expires_at integer,
    -- The mesh's order of commits: the id of the row's audit row. Null if
    -- another program wrote the row.
    seq integer,
    multicast integer not null default 0
) strict;

-- Idempotence; also finds a row by the sender's own id for it.
create unique index message_queue_client_id_idx
    on message_queue (mesh_id, client_message_id, sender_member_id)
    where client_message_id is not null and seq is not null;
-- A mailbox in its order.
create index message_queue_mailbox_idx
    on message_queue (mesh_id, target_spec, seq, created_at, id)
    where delivered_at is null;
create index message_queue_claim_idx on message_queue (claim_id)
    where claim_id is not null and delivered_at is null;
create index message_queue_multicast_idx on message_queue (mesh_id, seq) where multicast = 1;
create index message_queue_mesh_id_idx on message_queue (mesh_id, id);
create index message_queue_delivered_idx on message_queue (delivered_at)
    where delivered_at is not null;
create index message_queue_undelivered_idx on message_queue (created_at)
    where delivered_at is null;

-- Idempotence keys of queue rows that retention has deleted.
create table send_key (
    mesh_id text not null references mesh (id) on delete cascade,
    sender_member_id text not null references member (id) on delete cascade,
    client_message_id text not null,
    message_id text not null,
    created_at integer not null,
    primary key (mesh_id, sender_member_id, client_message_id)
) strict, without rowid;

create index send_key_created_idx on send_key (created_at);

create table peer_state (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    member_id text not null references member (id) on delete cascade,
    groups text not null default '[]',
    profile text not null default '{}',
    visible integer not null default 1,
    last_summary text,
    last_display_name text,
    cumulative_stats text not null
        default '{"messagesIn":0,"messagesOut":0,"toolCalls":0,"errors":0}',
    last_seen_at integer,
    created_at integer not null,
    updated_at integer not null
) strict;

create unique index peer_state_mesh_member_idx on peer_state (mesh_id, member_id);

-- `autoincrement`: an id is never given twice, even if the last row went.
create table audit_log (
    id integer primary key autoincrement,
    mesh_id text not null references mesh (id) on delete cascade,
    event_type text not null,
    actor_member_id text,
    actor_display_name text,
    payload text not null default '{}',
    prev_hash text not null,
    hash text not null,
    created_at integer not null
) strict;

create index audit_log_mesh_idx on audit_log (mesh_id);
create index audit_log_mesh_event_idx on audit_log (mesh_id, event_type);

create table invite (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    token text not null unique,
    max_uses integer not null default 1,
    used_count integer not null default 0,
    role text not null default 'member' check (role in ('admin', 'member')),
    preset text not null default '{}',
    expires_at integer not null,
    created_by text not null,
    created_at integer not null,
    revoked_at integer
) strict;

create index invite_mesh_idx on invite (mesh_id);
