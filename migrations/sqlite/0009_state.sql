-- What each mesh keeps of each kind, counted by triggers as it is written; and shared
-- state: a value has a version, counted from 1, and the seq of its last change.

create table usage (
    mesh_id text not null,
    kind text not null,
    rows integer not null,
    bytes integer not null,
    primary key (mesh_id, kind)
) strict, without rowid;

-- What was removed, for whoever missed the event: kept for a day.
create table removed (
    mesh_id text not null references mesh (id) on delete cascade,
    kind text not null,
    name text not null,
    seq integer not null,
    removed_by text not null,
    removed_at integer not null,
    primary key (mesh_id, kind, name)
) strict, without rowid;

create index removed_seq_idx on removed (mesh_id, seq);
create index removed_at_idx on removed (removed_at);

create table state (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    key text not null,
    value text not null,
    version integer not null,
    updated_by_presence text,
    updated_by_name text,
    updated_by_session_name text,
    updated_at integer not null,
    seq integer
) strict;

create unique index state_mesh_key_idx on state (mesh_id, key);
create index state_seq_idx on state (mesh_id, seq) where seq is not null;

create trigger state_usage_insert after insert on state begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'state', 1, octet_length(new.key) + octet_length(new.value))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger state_usage_update after update on state begin
    update usage
    set bytes = bytes + octet_length(new.key) + octet_length(new.value)
        - octet_length(old.key) - octet_length(old.value)
    where mesh_id = new.mesh_id and kind = 'state';
end;

create trigger state_usage_delete after delete on state begin
    update usage
    set rows = rows - 1, bytes = bytes - octet_length(old.key) - octet_length(old.value)
    where mesh_id = old.mesh_id and kind = 'state';
end;
