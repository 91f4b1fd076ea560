-- An installation's own schema, from before this broker: names, types and
-- constraints as its migrations leave them, some columns not yet there, rows in
-- every state, and rows that a unique index of ours would refuse.

create schema mesh;
create type mesh.visibility as enum ('private', 'public');
create type mesh.transport as enum ('managed', 'tailscale', 'self_hosted');
create type mesh.tier as enum ('free', 'pro', 'team', 'enterprise');
create type mesh.role as enum ('admin', 'member');
create type mesh.presence_status as enum ('idle', 'working', 'dnd');
create type mesh.presence_status_source as enum ('hook', 'manual', 'jsonl');
create type mesh.message_priority as enum ('now', 'next', 'low');

create table mesh.mesh (
  id text primary key not null,
  name text not null,
  slug text not null,
  owner_user_id text not null,
  visibility mesh.visibility default 'private' not null,
  transport mesh.transport default 'managed' not null,
  max_peers integer,
  tier mesh.tier default 'free' not null,
  owner_pubkey text,
  owner_secret_key text,
  root_key text,
  created_at timestamp default now() not null,
  archived_at timestamp
);
create table mesh.member (
  id text primary key not null,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  user_id text,
  peer_pubkey text not null,
  display_name text not null,
  role mesh.role default 'member' not null,
  joined_at timestamp default now() not null,
  last_seen_at timestamp,
  revoked_at timestamp
);
create table mesh.presence (
  id text primary key not null,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  session_id text not null,
  session_pubkey text,
  display_name text,
  pid integer not null,
  cwd text not null,
  status mesh.presence_status default 'idle' not null,
  status_source mesh.presence_status_source default 'jsonl' not null,
  status_updated_at timestamp default now() not null,
  summary text,
  groups jsonb default '[]',
  connected_at timestamp default now() not null,
  last_ping_at timestamp default now() not null,
  disconnected_at timestamp
);
create table mesh.message_queue (
  id text primary key not null,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  sender_member_id text not null
    references mesh.member (id) on delete cascade on update cascade,
  sender_session_pubkey text,
  target_spec text not null,
  priority mesh.message_priority default 'next' not null,
  nonce text not null,
  ciphertext text not null,
  created_at timestamp default now() not null,
  delivered_at timestamp,
  expires_at timestamp,
  client_message_id text,
  request_fingerprint text
);
create table mesh.peer_state (
  id text primary key not null,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  groups jsonb default '[]',
  profile jsonb default '{}',
  visible boolean default true not null,
  last_summary text,
  last_display_name text,
  cumulative_stats jsonb default '{"messagesIn":0,"messagesOut":0,"toolCalls":0,"errors":0}',
  last_seen_at timestamp,
  created_at timestamp default now() not null,
  updated_at timestamp default now() not null
);
create table mesh.audit_log (
  id integer primary key generated always as identity,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  event_type text not null,
  actor_member_id text,
  actor_display_name text,
  payload jsonb default '{}' not null,
  prev_hash text not null,
  hash text not null,
  created_at timestamp default now() not null
);
create index audit_log_mesh_idx on mesh.audit_log (mesh_id);
create index audit_log_created_idx on mesh.audit_log (created_at);
create table mesh.invite (
  id text primary key not null,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  token text not null,
  max_uses integer default 1 not null,
  used_count integer default 0 not null,
  role mesh.role default 'member' not null,
  expires_at timestamp not null,
  created_by text not null,
  created_at timestamp default now() not null,
  revoked_at timestamp,
  constraint invite_token_unique unique (token)
);
create table mesh.__cmh_migrations (
  filename text primary key, sha256 text not null, applied_at timestamptz default now()
);

insert into mesh.mesh (id, name, slug, owner_user_id, owner_pubkey, owner_secret_key, root_key)
values ('mesh1', 'Team', 'team', 'user1', 'aa', 'secret', 'root');
insert into mesh.mesh (id, name, slug, owner_user_id, archived_at)
values ('mesh2', 'Old team', 'team', 'user1', '2026-01-01');
-- A key twice: enrolled again after it was revoked, and once more for good measure.
insert into mesh.member (id, mesh_id, user_id, peer_pubkey, display_name, role, revoked_at)
values ('Owner0000000000000000000000000AB', 'mesh1', 'user1', 'bb', 'Ann', 'admin', null),
  ('Member000000000000000000000000AB', 'mesh1', null, 'cc', 'Bob', 'member', null),
  ('Member000000000000000000000000AC', 'mesh1', null, 'cc', 'Bob', 'member', '2026-01-01'),
  ('Member000000000000000000000000AD', 'mesh1', null, 'cc', 'Bob', 'member', null),
  ('Web00000000000000000000000000000', 'mesh1', 'user1', 'not a key', 'Web', 'member', null);
insert into mesh.presence (id, member_id, session_id, session_pubkey, pid, cwd, disconnected_at)
values ('p1', 'Member000000000000000000000000AB', 's1', 'dd', 7, '/work', null),
  ('p2', 'Member000000000000000000000000AB', 's1', null, 7, '/work', now());
-- One sender's id twice, as nothing forbade it.
insert into mesh.message_queue (id, mesh_id, sender_member_id, target_spec, nonce, ciphertext,
  created_at, delivered_at, client_message_id)
values
  ('Direct00000000000000000000000001', 'mesh1', 'Owner0000000000000000000000000AB', 'cc', 'n1',
    'c1', '2027-01-01 10:00:00.123456', null, 'id-1'),
  ('Direct00000000000000000000000002', 'mesh1', 'Owner0000000000000000000000000AB', 'dd', 'n2',
    'c2', '2027-01-01 10:00:01', null, 'id-2'),
  ('Direct00000000000000000000000003', 'mesh1', 'Owner0000000000000000000000000AB', 'cc', 'n3',
    'c3', '2027-01-01 09:00:00', '2027-01-01 09:00:01', 'id-2'),
  ('Group000000000000000000000000001', 'mesh1', 'Owner0000000000000000000000000AB', '*', 'n4',
    'c4', '2027-01-01 10:00:02', '2027-01-01 10:00:02', null),
  ('Topic000000000000000000000000001', 'mesh1', 'Web00000000000000000000000000000', '#general',
    'n5', 'c5', '2027-01-01 10:00:03', null, null);
-- A member's state twice: here nothing made it unique.
insert into mesh.peer_state (id, mesh_id, member_id, last_summary, last_seen_at)
values ('s1', 'mesh1', 'Member000000000000000000000000AB', 'old', '2026-01-01'),
  ('s2', 'mesh1', 'Member000000000000000000000000AB', 'new', '2027-01-01');
insert into mesh.invite (id, mesh_id, token, expires_at, created_by)
values ('i1', 'mesh1', 'token1', '2100-01-01', 'user1');
-- The chain's first two rows; `payload` is what its own verifier reads back.
insert into mesh.audit_log (mesh_id, event_type, actor_member_id, actor_display_name, payload,
  prev_hash, hash, created_at)
select 'mesh1', 'peer_left', 'Owner0000000000000000000000000AB', 'Ann', '{}', 'genesis',
  encode(sha256(convert_to(
    'genesis|mesh1|peer_left|Owner0000000000000000000000000AB|{}|2027-01-01T10:00:00.120Z',
    'UTF8')), 'hex'),
  '2027-01-01 10:00:00.120';
insert into mesh.audit_log (mesh_id, event_type, actor_member_id, actor_display_name, payload,
  prev_hash, hash, created_at)
select 'mesh1', 'message_sent', null, null, '{"targetSpec": "*", "priority": "next"}', hash,
  encode(sha256(convert_to(
    hash || '|mesh1|message_sent|null|{"priority":"next","targetSpec":"*"}'
      || '|2027-01-01T10:00:01.000Z', 'UTF8')), 'hex'),
  '2027-01-01 10:00:01'
from mesh.audit_log;
