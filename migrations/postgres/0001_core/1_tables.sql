-- The tables of schema `mesh`, as an installation's own migrations make them.
-- On a database that has them already this adds what is missing and leaves the
-- rest alone: nothing is dropped, narrowed or rewritten.

-- Whether the owners of meshes are rows of `public."user"`: where these tables
-- are made here, and a dashboard's users are there already.
select set_config('claudemesh.refer_to_users', case
  when to_regclass('mesh.mesh') is null and to_regclass('public."user"') is not null
  then 'yes' else 'no' end, true);

do $$
declare
  kind record;
begin
  for kind in
    select * from (values
      ('visibility', '''private'', ''public'''),
      ('transport', '''managed'', ''tailscale'', ''self_hosted'''),
      ('tier', '''free'', ''pro'', ''team'', ''enterprise'''),
      ('role', '''admin'', ''member'''),
      ('presence_status', '''idle'', ''working'', ''dnd'''),
      ('presence_status_source', '''hook'', ''manual'', ''jsonl'''),
      ('message_priority', '''now'', ''next'', ''low''')
    ) as wanted (name, labels)
    where not exists (
      select from pg_type t
      where t.typname = wanted.name and t.typnamespace = to_regnamespace('mesh')
    )
  loop
    execute format('create type mesh.%I as enum (%s)', kind.name, kind.labels);
  end loop;
end
$$;

create table if not exists mesh.mesh (
  id text primary key,
  name text not null,
  slug text not null,
  owner_user_id text not null,
  visibility mesh.visibility not null default 'private',
  transport mesh.transport not null default 'managed',
  max_peers integer,
  tier mesh.tier not null default 'free',
  owner_pubkey text,
  owner_secret_key text,
  root_key text,
  self_editable jsonb
    default '{"displayName":true,"roleTag":true,"groups":true,"messageMode":true}',
  created_at timestamp not null default now(),
  archived_at timestamp
);

create table if not exists mesh.member (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  user_id text,
  peer_pubkey text not null,
  display_name text not null,
  role mesh.role not null default 'member',
  role_tag text,
  default_groups jsonb default '[]',
  message_mode text default 'push',
  dashboard_user_id text,
  joined_at timestamp not null default now(),
  last_seen_at timestamp,
  revoked_at timestamp,
  peer_grants jsonb not null default '{}'
);

create table if not exists mesh.presence (
  id text primary key,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  session_id text not null,
  session_pubkey text,
  display_name text,
  pid integer not null,
  cwd text not null,
  status mesh.presence_status not null default 'idle',
  status_source mesh.presence_status_source not null default 'jsonl',
  status_updated_at timestamp not null default now(),
  summary text,
  groups jsonb default '[]',
  role text not null default 'session',
  connected_at timestamp not null default now(),
  last_ping_at timestamp not null default now(),
  disconnected_at timestamp
);

-- This one and the audit log get a row for every message, and no foreign keys:
-- three checks per message cost as much as its rows. `broker_accept_v1` and
-- `broker_append_v1` hold what their rows refer to, once per batch, and triggers
-- follow when that goes. An installation that has foreign keys keeps them.
create table if not exists mesh.message_queue (
  id text primary key,
  mesh_id text not null,
  sender_member_id text not null,
  sender_session_pubkey text,
  target_spec text not null,
  priority mesh.message_priority not null default 'next',
  nonce text not null,
  ciphertext text not null,
  created_at timestamp not null default now(),
  delivered_at timestamp,
  expires_at timestamp,
  client_message_id text,
  request_fingerprint text,
  claimed_at timestamp,
  claim_id text,
  claim_expires_at timestamp
);

create table if not exists mesh.pending_status (
  id text primary key,
  pid integer not null,
  cwd text not null,
  status text not null,
  status_source text not null,
  created_at timestamp not null default now(),
  applied_at timestamp
);

create table if not exists mesh.peer_state (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  groups jsonb default '[]',
  profile jsonb default '{}',
  visible boolean not null default true,
  last_summary text,
  last_display_name text,
  cumulative_stats jsonb
    default '{"messagesIn":0,"messagesOut":0,"toolCalls":0,"errors":0}',
  last_seen_at timestamp,
  created_at timestamp not null default now(),
  updated_at timestamp not null default now()
);

create table if not exists mesh.audit_log (
  id integer generated always as identity primary key,
  mesh_id text not null,
  event_type text not null,
  actor_member_id text,
  actor_display_name text,
  payload jsonb not null default '{}',
  prev_hash text not null,
  hash text not null,
  created_at timestamp not null default now()
);

create table if not exists mesh.invite (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  token text not null unique,
  token_bytes text,
  code text,
  max_uses integer not null default 1,
  used_count integer not null default 0,
  role mesh.role not null default 'member',
  preset jsonb default '{}',
  expires_at timestamp not null,
  created_by text not null,
  created_at timestamp not null default now(),
  revoked_at timestamp,
  version integer not null default 1,
  capability_v2 text,
  claimed_by_pubkey text
);

create table if not exists mesh.pending_invite (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  email text not null,
  code text not null,
  sent_at timestamp not null default now(),
  accepted_at timestamp,
  revoked_at timestamp,
  created_by text not null,
  created_at timestamp not null default now()
);

-- Columns that an older installation may lack.
alter table mesh.mesh
  add column if not exists owner_pubkey text,
  add column if not exists owner_secret_key text,
  add column if not exists root_key text,
  add column if not exists self_editable jsonb
    default '{"displayName":true,"roleTag":true,"groups":true,"messageMode":true}',
  add column if not exists archived_at timestamp;
alter table mesh.member
  add column if not exists user_id text,
  add column if not exists role_tag text,
  add column if not exists default_groups jsonb default '[]',
  add column if not exists message_mode text default 'push',
  add column if not exists dashboard_user_id text,
  add column if not exists last_seen_at timestamp,
  add column if not exists revoked_at timestamp,
  add column if not exists peer_grants jsonb not null default '{}';
alter table mesh.presence
  add column if not exists session_pubkey text,
  add column if not exists display_name text,
  add column if not exists summary text,
  add column if not exists groups jsonb default '[]',
  add column if not exists role text not null default 'session',
  add column if not exists disconnected_at timestamp;
alter table mesh.message_queue
  add column if not exists sender_session_pubkey text,
  add column if not exists expires_at timestamp,
  add column if not exists client_message_id text,
  add column if not exists request_fingerprint text,
  add column if not exists claimed_at timestamp,
  add column if not exists claim_id text,
  add column if not exists claim_expires_at timestamp;
alter table mesh.peer_state
  add column if not exists groups jsonb default '[]',
  add column if not exists profile jsonb default '{}',
  add column if not exists visible boolean not null default true,
  add column if not exists last_summary text,
  add column if not exists last_display_name text,
  add column if not exists cumulative_stats jsonb
    default '{"messagesIn":0,"messagesOut":0,"toolCalls":0,"errors":0}',
  add column if not exists last_seen_at timestamp;
alter table mesh.audit_log
  add column if not exists actor_member_id text,
  add column if not exists actor_display_name text;
alter table mesh.invite
  add column if not exists token_bytes text,
  add column if not exists code text,
  add column if not exists preset jsonb default '{}',
  add column if not exists revoked_at timestamp,
  add column if not exists version integer not null default 1,
  add column if not exists capability_v2 text,
  add column if not exists claimed_by_pubkey text;

do $$
begin
  if current_setting('claudemesh.refer_to_users') = 'yes' then
    alter table mesh.mesh add constraint mesh_owner_user_id_user_id_fk
      foreign key (owner_user_id) references public."user" (id)
      on delete cascade on update cascade;
    alter table mesh.member add constraint member_user_id_user_id_fk
      foreign key (user_id) references public."user" (id)
      on delete set null on update cascade;
    alter table mesh.invite add constraint invite_created_by_user_id_fk
      foreign key (created_by) references public."user" (id)
      on delete cascade on update cascade;
  end if;
end
$$;

-- Unique ones only where the rows that are there allow it; no statement of the
-- broker depends on them.
do $$
begin
  if to_regclass('mesh.peer_state_mesh_member_idx') is null and not exists (
    select from mesh.peer_state group by mesh_id, member_id having count(*) > 1
  ) then
    create unique index peer_state_mesh_member_idx on mesh.peer_state (mesh_id, member_id);
  end if;
  if to_regclass('mesh.invite_code_unique_idx') is null and not exists (
    select from mesh.invite where code is not null group by code having count(*) > 1
  ) then
    create unique index invite_code_unique_idx on mesh.invite (code) where code is not null;
  end if;
end
$$;

create index if not exists member_dashboard_user_idx on mesh.member (dashboard_user_id);
create index if not exists member_peer_grants_gin_idx on mesh.member using gin (peer_grants);
