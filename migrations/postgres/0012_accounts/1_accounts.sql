-- Accounts of people, and what is kept of the sign-ins of their command lines beside
-- the tables that are there already.

create table if not exists mesh.account (
  id text primary key,
  name text not null,
  email text,
  -- sha256 of the sign-in key in hex. Null: another program signs in for it.
  key_hash text unique,
  created_at timestamp not null default now(),
  revoked_at timestamp
);

-- What tokens are signed by: one row, written by the first that needs it.
create table if not exists mesh.signing_key (
  single boolean primary key default true check (single),
  secret bytea not null,
  created_at timestamp not null default now()
);

alter table mesh.device_code add column if not exists failures integer not null default 0;
create index if not exists device_code_user_code_idx on mesh.device_code (user_code);
create index if not exists device_code_expires_idx on mesh.device_code (expires_at);
create index if not exists cli_session_user_idx on mesh.cli_session (user_id);
create index if not exists cli_session_token_hash_idx on mesh.cli_session (token_hash);

create index if not exists member_user_idx on mesh.member (user_id) where user_id is not null;
create index if not exists mesh_owner_user_idx on mesh.mesh (owner_user_id);

-- Somebody claimed an invite by its code without a key to sign with: the first hello
-- by this member id brings it.
create table if not exists mesh.unbound_member (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  display_name text not null,
  role mesh.role not null,
  preset jsonb not null default '{}',
  expires_at timestamp not null
);

create index if not exists unbound_member_expires_idx on mesh.unbound_member (expires_at);
