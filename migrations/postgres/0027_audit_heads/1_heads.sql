-- The newest head of each chain that a node has signed: whether the next one is due, and
-- what peers are shown, cost one row to look at. The heads themselves are rows of the
-- chains; what stands here is believed by its signature alone.
create table if not exists mesh.broker_audit_head (
  mesh_id text primary key references mesh.mesh (id) on delete cascade on update cascade,
  -- The row that carries it.
  head_id bigint not null,
  -- Where the chain ended before that row, with the signature: as an anchor, in JSON.
  anchor text not null,
  signed_at timestamp not null
);
