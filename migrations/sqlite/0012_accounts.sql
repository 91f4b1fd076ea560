-- Accounts of people, the sessions and the sign-in codes of their command lines, invites
-- by a short code, and members whose key is not known yet.

create table account (
    id text primary key not null,
    name text not null,
    email text,
    -- sha256 of the sign-in key in hex. Null: another program signs in for it.
    key_hash text unique,
    created_at integer not null,
    revoked_at integer
) strict;

-- What tokens are signed by: one row, written by the first that needs it.
create table signing_key (
    single integer primary key check (single = 1),
    secret blob not null,
    created_at integer not null
) strict;

create table device_code (
    id text primary key not null,
    device_code text not null unique,
    user_code text not null,
    session_id text not null unique,
    status text not null default 'pending'
        check (status in ('pending', 'approved', 'consumed', 'expired')),
    user_id text references account (id) on delete cascade,
    hostname text,
    platform text,
    arch text,
    ip_address text,
    failures integer not null default 0,
    created_at integer not null,
    approved_at integer,
    expires_at integer not null
) strict;

create index device_code_user_code_idx on device_code (user_code);
create index device_code_expires_idx on device_code (expires_at);

create table cli_session (
    id text primary key not null,
    user_id text not null references account (id) on delete cascade,
    hostname text,
    platform text,
    arch text,
    token_hash text not null unique,
    last_seen_at integer,
    created_at integer not null,
    revoked_at integer
) strict;

create index cli_session_user_idx on cli_session (user_id);

alter table member add column dashboard_user_id text;
create index if not exists member_user_idx on member (user_id) where user_id is not null;
create index member_dashboard_user_idx on member (dashboard_user_id)
    where dashboard_user_id is not null;
create index mesh_owner_user_idx on mesh (owner_user_id) where owner_user_id is not null;

alter table invite add column code text;
alter table invite add column version integer not null default 1;
alter table invite add column capability_v2 text;
create unique index invite_code_unique_idx on invite (code) where code is not null;

-- Somebody claimed an invite by its code without a key to sign with: the first hello
-- by this member id brings it.
create table unbound_member (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    display_name text not null,
    role text not null check (role in ('admin', 'member')),
    preset text not null default '{}',
    expires_at integer not null
) strict;

create index unbound_member_expires_idx on unbound_member (expires_at);

create table permission (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    member_id text not null references member (id) on delete cascade,
    can_invite integer not null default 0,
    can_deploy_mcp integer not null default 0,
    can_manage_files integer not null default 0,
    can_manage_vault integer not null default 0,
    can_manage_watches integer not null default 0,
    can_manage_webhooks integer not null default 0,
    can_write_state integer not null default 1,
    can_send integer not null default 1,
    can_use_tools integer not null default 1,
    can_delete_mesh integer not null default 0,
    can_manage_permissions integer not null default 0,
    updated_at integer not null
) strict;

create unique index permission_member_mesh_idx on permission (member_id, mesh_id);
