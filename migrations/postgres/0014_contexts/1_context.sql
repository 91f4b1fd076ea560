-- What members say that they work on: one context for each member of a mesh.

alter table mesh.context add column if not exists peer_session_name text;
alter table mesh.context add column if not exists seq bigint;

create index if not exists context_newest_idx on mesh.context (mesh_id, updated_at, id);
create index if not exists context_seq_idx on mesh.context (mesh_id, seq) where seq is not null;

select mesh.broker_count_v1('context', 'context', 'octet_length(r.summary)
  + coalesce(octet_length(array_to_string(r.files_read, '''')), 0)
  + coalesce(octet_length(array_to_string(r.key_findings, '''')), 0)
  + coalesce(octet_length(array_to_string(r.tags, '''')), 0)');
