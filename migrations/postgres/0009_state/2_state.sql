-- Shared state: each value has a version, counted from 1, and the seq of its last
-- change; other programs' rows have neither.

alter table mesh.state add column if not exists version bigint not null default 1;
alter table mesh.state add column if not exists seq bigint;
alter table mesh.state add column if not exists updated_by_session_name text;

create index if not exists state_seq_idx on mesh.state (mesh_id, seq) where seq is not null;

select mesh.broker_count_v1('state', 'state', 'octet_length(r.key) + octet_length(r.value::text)');
