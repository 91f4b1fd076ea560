-- The newest head of each chain that a node has signed: whether the next one is due, and
-- what peers are shown, cost one row to look at. The heads themselves are rows of the
-- chains; what stands here is believed by its signature alone.
create table audit_head (
  mesh_id text primary key references mesh (id) on delete cascade,
  -- The row that carries it.
  head_id integer not null,
  -- Where the chain ended before that row, with the signature: as an anchor, in JSON.
  anchor text not null,
  signed_at integer not null
) strict, without rowid;

-- The row that begins the mesh's audit chain. Null for a mesh that an earlier release made:
-- its chain has none.
alter table mesh add column audit_genesis_id integer;
