-- Topics, keys and notifications, and how a command line signs in: tables that
-- a dashboard's own routes write as well.

do $$
declare
  kind record;
begin
  for kind in
    select * from (values
      ('topic_visibility', '''public'', ''private'', ''dm'''),
      ('topic_member_role', '''lead'', ''member'', ''observer'''),
      ('api_key_capability', '''send'', ''read'', ''state_write'', ''admin'''),
      ('device_code_status', '''pending'', ''approved'', ''consumed'', ''expired''')
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

create table if not exists mesh.topic (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  name text not null,
  description text,
  visibility mesh.topic_visibility not null default 'public',
  created_by_member_id text
    references mesh.member (id) on delete set null on update cascade,
  encrypted_key_pubkey text,
  created_at timestamp not null default now(),
  archived_at timestamp
);

create table if not exists mesh.topic_member (
  topic_id text not null references mesh.topic (id) on delete cascade on update cascade,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  role mesh.topic_member_role not null default 'member',
  joined_at timestamp not null default now(),
  last_read_at timestamp
);

create table if not exists mesh.topic_message (
  id text primary key,
  topic_id text not null references mesh.topic (id) on delete cascade on update cascade,
  sender_member_id text not null
    references mesh.member (id) on delete cascade on update cascade,
  sender_session_pubkey text,
  nonce text not null,
  ciphertext text not null,
  body_version integer not null default 1,
  reply_to_id text references mesh.topic_message (id) on delete set null on update cascade,
  created_at timestamp not null default now()
);

create table if not exists mesh.topic_member_key (
  id text primary key,
  topic_id text not null references mesh.topic (id) on delete cascade on update cascade,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  encrypted_key text not null,
  nonce text not null,
  created_at timestamp not null default now(),
  rotated_at timestamp
);

create table if not exists mesh.notification (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  topic_id text not null references mesh.topic (id) on delete cascade on update cascade,
  message_id text not null
    references mesh.topic_message (id) on delete cascade on update cascade,
  recipient_member_id text not null
    references mesh.member (id) on delete cascade on update cascade,
  sender_member_id text not null
    references mesh.member (id) on delete cascade on update cascade,
  kind text not null default 'mention',
  created_at timestamp not null default now(),
  read_at timestamp
);

create table if not exists mesh.api_key (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  label text not null,
  secret_hash text not null,
  secret_prefix text not null,
  capabilities jsonb not null default '[]',
  topic_scopes jsonb,
  issued_by_member_id text
    references mesh.member (id) on delete set null on update cascade,
  created_at timestamp not null default now(),
  last_used_at timestamp,
  revoked_at timestamp,
  expires_at timestamp
);

select set_config('claudemesh.refer_to_users', case
  when to_regclass('mesh.device_code') is null and to_regclass('public."user"') is not null
  then 'yes' else 'no' end, true);

create table if not exists mesh.device_code (
  id text primary key,
  device_code text not null unique,
  user_code text not null,
  session_id text not null unique,
  status mesh.device_code_status not null default 'pending',
  user_id text,
  hostname text,
  platform text,
  arch text,
  ip_address text,
  session_token text,
  created_at timestamp not null default now(),
  approved_at timestamp,
  expires_at timestamp not null
);

create table if not exists mesh.cli_session (
  id text primary key,
  user_id text not null,
  device_code_id text references mesh.device_code (id),
  hostname text,
  platform text,
  arch text,
  token_hash text not null,
  last_seen_at timestamp default now(),
  created_at timestamp not null default now(),
  revoked_at timestamp
);

do $$
declare
  wanted record;
begin
  if current_setting('claudemesh.refer_to_users') = 'yes' then
    alter table mesh.device_code add constraint device_code_user_id_user_id_fk
      foreign key (user_id) references public."user" (id) on delete cascade on update cascade;
    if not exists (
      select from pg_constraint
      where conrelid = 'mesh.cli_session'::regclass and contype = 'f'
        and confrelid = to_regclass('public."user"')
    ) then
      alter table mesh.cli_session add constraint cli_session_user_id_user_id_fk
        foreign key (user_id) references public."user" (id) on delete cascade on update cascade
        not valid;
    end if;
  end if;
  -- Unique ones only where the rows that are there allow it.
  for wanted in
    select * from (values
      ('topic_mesh_name_unique', 'topic', 'mesh_id, name'),
      ('topic_member_unique', 'topic_member', 'topic_id, member_id'),
      ('topic_member_key_unique', 'topic_member_key', 'topic_id, member_id'),
      ('notification_unique', 'notification', 'message_id, recipient_member_id')
    ) as w (name, tab, cols)
    where to_regclass('mesh.' || w.name) is null
  loop
    begin
      execute format('create unique index %I on mesh.%I (%s)', wanted.name, wanted.tab,
        wanted.cols);
    exception when unique_violation then
      execute format('create index %I on mesh.%I (%s)', wanted.name || '_broker', wanted.tab,
        wanted.cols);
    end;
  end loop;
end
$$;

create index if not exists topic_member_by_member on mesh.topic_member (member_id);
create index if not exists topic_message_by_topic on mesh.topic_message (topic_id, created_at);
create index if not exists topic_message_by_reply on mesh.topic_message (reply_to_id);
create index if not exists api_key_by_mesh on mesh.api_key (mesh_id);
create index if not exists api_key_by_prefix on mesh.api_key (secret_prefix);
create index if not exists device_code_user_code_idx on mesh.device_code (user_code);
create index if not exists cli_session_token_hash_idx on mesh.cli_session (token_hash);
