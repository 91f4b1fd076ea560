-- The row that begins the mesh's audit chain. Null for a mesh that another program or an
-- earlier release made: its chain has none.
alter table mesh.mesh add column if not exists audit_genesis_id bigint;
