-- Servers that peers host for their mesh and that outlive their hosts: while a host is
-- there, its presence says what it hosts.

create table mcp_server (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    name text not null,
    member_id text not null references member (id) on delete cascade,
    -- The host, which may have ended.
    presence_id text not null,
    hosted_by text not null,
    description text not null,
    -- [{name, description}]
    tools text not null,
    registered_at integer not null,
    seq integer not null
) strict;

create unique index mcp_server_mesh_name_idx on mcp_server (mesh_id, name);
create index mcp_server_member_idx on mcp_server (member_id, name);

create trigger mcp_server_usage_insert after insert on mcp_server begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'mcp_server', 1,
        octet_length(new.name) + octet_length(new.description) + octet_length(new.tools))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger mcp_server_usage_update after update on mcp_server begin
    update usage
    set bytes = bytes + octet_length(new.name) + octet_length(new.description)
        + octet_length(new.tools) - octet_length(old.name) - octet_length(old.description)
        - octet_length(old.tools)
    where mesh_id = new.mesh_id and kind = 'mcp_server';
end;

create trigger mcp_server_usage_delete after delete on mcp_server begin
    update usage
    set rows = rows - 1, bytes = bytes - octet_length(old.name) - octet_length(old.description)
        - octet_length(old.tools)
    where mesh_id = old.mesh_id and kind = 'mcp_server';
end;
