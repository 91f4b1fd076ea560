-- Streams: names under which the peers of a mesh publish to each other. What is
-- published is kept nowhere.

create table stream (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    name text not null,
    created_by_name text,
    created_by_session_name text,
    created_at integer not null
) strict;

create unique index stream_mesh_name_idx on stream (mesh_id, name);
create index stream_created_idx on stream (mesh_id, created_at, id);

create trigger stream_usage_insert after insert on stream begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'stream', 1, octet_length(new.name))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger stream_usage_update after update on stream begin
    update usage set bytes = bytes + octet_length(new.name) - octet_length(old.name)
    where mesh_id = new.mesh_id and kind = 'stream';
end;

create trigger stream_usage_delete after delete on stream begin
    update usage set rows = rows - 1, bytes = bytes - octet_length(old.name)
    where mesh_id = old.mesh_id and kind = 'stream';
end;
