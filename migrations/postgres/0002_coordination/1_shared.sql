-- What peers of a mesh share: state, memory, tasks, schedules, secrets.

create table if not exists mesh.state (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  key text not null,
  value jsonb not null,
  updated_by_presence text,
  updated_by_name text,
  updated_at timestamp not null default now()
);

create table if not exists mesh.memory (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  content text not null,
  tags text[] default '{}',
  remembered_by text references mesh.member (id),
  remembered_by_name text,
  remembered_at timestamp not null default now(),
  forgotten_at timestamp,
  search_vector tsvector generated always as (to_tsvector('english', content)) stored
);

create table if not exists mesh.context (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  member_id text references mesh.member (id) on delete cascade on update cascade,
  presence_id text references mesh.presence (id) on delete cascade on update cascade,
  peer_name text,
  summary text not null,
  files_read text[] default '{}',
  key_findings text[] default '{}',
  tags text[] default '{}',
  updated_at timestamp not null default now()
);

create table if not exists mesh.task (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  title text not null,
  assignee text,
  claimed_by_name text,
  claimed_by_presence text references mesh.presence (id),
  priority text not null default 'normal',
  status text not null default 'open',
  tags text[] default '{}',
  result text,
  created_by_name text,
  created_at timestamp not null default now(),
  claimed_at timestamp,
  completed_at timestamp
);

create table if not exists mesh.stream (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  name text not null,
  created_by_name text,
  created_at timestamp not null default now()
);

create table if not exists mesh.skill (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  name text not null,
  description text not null,
  instructions text not null,
  tags text[] default '{}',
  author_member_id text references mesh.member (id),
  author_name text,
  source_type text default 'inline',
  bundle_file_id text,
  git_url text,
  git_branch text default 'main',
  git_sha text,
  manifest jsonb,
  created_at timestamp not null default now(),
  updated_at timestamp not null default now()
);

create table if not exists mesh.webhook (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  name text not null,
  secret text not null,
  active boolean not null default true,
  created_by text not null references mesh.member (id) on delete cascade on update cascade,
  created_at timestamp not null default now()
);

create table if not exists mesh.vault_entry (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  key text not null,
  ciphertext text not null,
  nonce text not null,
  sealed_key text not null,
  entry_type text default 'env',
  mount_path text,
  description text,
  created_at timestamp not null default now(),
  updated_at timestamp not null default now()
);

create table if not exists mesh.scheduled_message (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  presence_id text,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  "to" text not null,
  message text not null,
  deliver_at timestamp,
  cron text,
  subtype text,
  fired_count integer not null default 0,
  cancelled boolean not null default false,
  fired_at timestamp,
  created_at timestamp not null default now()
);

create table if not exists mesh.service (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  name text not null,
  type text not null,
  source_type text not null,
  source_file_id text,
  source_git_url text,
  source_git_branch text default 'main',
  source_git_sha text,
  prev_git_sha text,
  description text not null,
  instructions text,
  tools_schema jsonb,
  manifest jsonb,
  runtime text,
  status text default 'stopped',
  config jsonb default '{}',
  last_health timestamp,
  restart_count integer default 0,
  version integer default 1,
  scope jsonb default '{"type":"peer"}',
  deployed_by text references mesh.member (id),
  deployed_by_name text,
  created_at timestamp not null default now(),
  updated_at timestamp not null default now()
);

create table if not exists mesh.permission (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  can_invite boolean not null default false,
  can_deploy_mcp boolean not null default false,
  can_manage_files boolean not null default false,
  can_manage_vault boolean not null default false,
  can_manage_watches boolean not null default false,
  can_manage_webhooks boolean not null default false,
  can_write_state boolean not null default true,
  can_send boolean not null default true,
  can_use_tools boolean not null default true,
  can_delete_mesh boolean not null default false,
  can_manage_permissions boolean not null default false,
  updated_at timestamp not null default now()
);

do $$
declare
  wanted record;
begin
  -- Unique ones only where the rows that are there allow it.
  for wanted in
    select * from (values
      ('state_mesh_key_idx', 'state', 'mesh_id, key'),
      ('context_mesh_member_idx', 'context', 'mesh_id, member_id'),
      ('stream_mesh_name_idx', 'stream', 'mesh_id, name'),
      ('skill_mesh_name_idx', 'skill', 'mesh_id, name'),
      ('webhook_mesh_name_idx', 'webhook', 'mesh_id, name'),
      ('vault_entry_mesh_member_key_idx', 'vault_entry', 'mesh_id, member_id, key'),
      ('service_mesh_name_idx', 'service', 'mesh_id, name'),
      ('permission_member_mesh_idx', 'permission', 'member_id, mesh_id')
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
  if to_regclass('mesh.memory_search_idx') is null and exists (
    select from pg_attribute
    where attrelid = 'mesh.memory'::regclass and attname = 'search_vector' and not attisdropped
  ) then
    create index memory_search_idx on mesh.memory using gin (search_vector);
  end if;
end
$$;

create index if not exists scheduled_message_mesh_idx on mesh.scheduled_message (mesh_id);
create index if not exists task_mesh_idx on mesh.task (mesh_id);
create index if not exists memory_mesh_idx on mesh.memory (mesh_id);
