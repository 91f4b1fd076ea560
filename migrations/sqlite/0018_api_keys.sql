-- API keys: of a secret only its beginning and its hash are kept.

create table api_key (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    label text not null,
    secret_hash text not null,
    secret_prefix text not null,
    capabilities text not null default '[]',
    topic_scopes text,
    issued_by_member_id text references member (id) on delete set null,
    created_at integer not null,
    last_used_at integer,
    revoked_at integer,
    expires_at integer
) strict;

create index api_key_mesh_idx on api_key (mesh_id, created_at, id);
create index api_key_prefix_idx on api_key (secret_prefix);
create index api_key_issuer_idx on api_key (issued_by_member_id) where revoked_at is null;
create index api_key_revoked_idx on api_key (mesh_id, revoked_at) where revoked_at is not null;
create index api_key_expires_idx on api_key (mesh_id, expires_at) where expires_at is not null;

create trigger api_key_usage_insert after insert on api_key begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'api_key', 1,
        octet_length(new.label) + octet_length(coalesce(new.topic_scopes, '')))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger api_key_usage_update after update of label, topic_scopes on api_key begin
    update usage
    set bytes = bytes
        + octet_length(new.label) + octet_length(coalesce(new.topic_scopes, ''))
        - octet_length(old.label) - octet_length(coalesce(old.topic_scopes, ''))
    where mesh_id = new.mesh_id and kind = 'api_key';
end;

create trigger api_key_usage_delete after delete on api_key begin
    update usage
    set rows = rows - 1, bytes = bytes
        - octet_length(old.label) - octet_length(coalesce(old.topic_scopes, ''))
    where mesh_id = old.mesh_id and kind = 'api_key';
end;

-- All members of a user.
create index if not exists member_user_idx on member (user_id) where user_id is not null;
