-- Topics: who reads them, what was said in them, the keys that it is sealed with.
--
-- A post has two rows. The one in `message_queue`, a multicast without content, has
-- its place in the mesh's order and its sender's own id; it goes with what was
-- delivered. The one here is the topic's history.
--
-- A member goes only with its mesh, and that takes its topics along: what lies below a
-- topic names members without referring to them, and needs no index for that.

create table topic (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    name text not null,
    description text,
    visibility text not null default 'public'
        check (visibility in ('public', 'private', 'dm')),
    created_by_member_id text,
    encrypted_key_pubkey text,
    -- `client` or `broker`; null where that is not known.
    key_made_by text,
    created_at integer not null,
    archived_at integer,
    -- Grows with every change of who is in it.
    roster integer not null default 0
) strict;

create unique index topic_mesh_name_unique on topic (mesh_id, name);

create table topic_member (
    topic_id text not null references topic (id) on delete cascade,
    member_id text not null references member (id) on delete cascade,
    role text not null default 'member' check (role in ('lead', 'member', 'observer')),
    joined_at integer not null,
    last_read_at integer,
    -- Posts after this `seq` are for the member.
    joined_seq integer not null default 0,
    -- Posts up to this `seq` the member has had on one of its connections.
    delivered_seq integer not null default 0,
    primary key (topic_id, member_id)
) strict, without rowid;

create index topic_member_by_member on topic_member (member_id);

create trigger topic_member_comes after insert on topic_member begin
    update topic set roster = roster + 1 where id = new.topic_id;
end;

create trigger topic_member_goes after delete on topic_member begin
    update topic set roster = roster + 1 where id = old.topic_id;
end;

-- Who may join a topic that is not public.
create table topic_invite (
    topic_id text not null references topic (id) on delete cascade,
    member_id text not null,
    invited_by_member_id text not null,
    created_at integer not null,
    primary key (topic_id, member_id)
) strict, without rowid;

create table topic_message (
    id text primary key not null,
    topic_id text not null references topic (id) on delete cascade,
    sender_member_id text not null,
    sender_name text,
    sender_session_pubkey text,
    nonce text not null,
    ciphertext text not null,
    body_version integer not null default 1,
    reply_to_id text references topic_message (id) on delete set null,
    created_at integer not null,
    priority text not null default 'next' check (priority in ('now', 'next', 'low')),
    -- The mesh's order of commits: the id of the post's audit row.
    seq integer not null
) strict;

create index topic_message_history_idx on topic_message (topic_id, created_at, id);
create index topic_message_order_idx on topic_message (topic_id, seq);
create index topic_message_by_reply on topic_message (reply_to_id) where reply_to_id is not null;
create index topic_message_age_idx on topic_message (created_at);

create table topic_member_key (
    id text primary key not null,
    topic_id text not null references topic (id) on delete cascade,
    member_id text not null,
    encrypted_key text not null,
    nonce text not null,
    created_at integer not null,
    rotated_at integer
) strict;

create unique index topic_member_key_unique on topic_member_key (topic_id, member_id);

create table notification (
    id text primary key not null,
    mesh_id text not null,
    topic_id text not null,
    message_id text not null references topic_message (id) on delete cascade,
    recipient_member_id text not null references member (id) on delete cascade,
    sender_member_id text not null,
    kind text not null default 'mention',
    created_at integer not null,
    read_at integer
) strict;

create unique index notification_unique on notification (message_id, recipient_member_id);
create index notification_recipient_idx on notification (recipient_member_id, created_at);

create trigger topic_usage_insert after insert on topic begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'topics', 1,
        octet_length(new.name) + coalesce(octet_length(new.description), 0))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger topic_usage_delete after delete on topic begin
    update usage
    set rows = rows - 1,
        bytes = bytes - octet_length(old.name) - coalesce(octet_length(old.description), 0)
    where mesh_id = old.mesh_id and kind = 'topics';
end;
