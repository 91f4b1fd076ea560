-- Servers that peers host for their mesh and that outlive their hosts: while a host is
-- there, its presence says what it hosts.

create table if not exists mesh.broker_mcp_server (
  id text primary key,
  mesh_id text not null references mesh.mesh (id) on delete cascade on update cascade,
  name text not null,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  -- The host, which may have ended.
  presence_id text not null,
  hosted_by text not null,
  description text not null,
  -- [{name, description}]
  tools text not null,
  registered_at timestamp not null,
  seq bigint not null
);

create unique index if not exists broker_mcp_server_mesh_name_idx
  on mesh.broker_mcp_server (mesh_id, name);
create index if not exists broker_mcp_server_member_idx
  on mesh.broker_mcp_server (member_id, name);

select mesh.broker_count_v1('broker_mcp_server', 'mcp_server',
  'octet_length(r.name) + octet_length(r.description) + octet_length(r.tools)');
