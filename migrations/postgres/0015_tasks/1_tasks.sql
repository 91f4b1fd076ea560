-- Tasks whose claims may run out: then a task is open again, whatever its row says.
-- Rows of other programs have no seq, and claims that do not end.

alter table mesh.task add column if not exists claimed_by_member text;
alter table mesh.task add column if not exists claim_lease_ms bigint;
alter table mesh.task add column if not exists claim_expires_at timestamp;
alter table mesh.task add column if not exists changed_by_name text;
alter table mesh.task add column if not exists seq bigint;

create index if not exists task_newest_idx on mesh.task (mesh_id, created_at desc, id desc);
create index if not exists task_seq_idx on mesh.task (mesh_id, seq) where seq is not null;
create index if not exists task_expiry_idx on mesh.task (claim_expires_at)
where status = 'claimed' and claim_expires_at is not null;
create index if not exists task_done_idx on mesh.task (completed_at) where status = 'done';
create index if not exists task_mesh_done_idx on mesh.task (mesh_id, completed_at)
where status = 'done';

select mesh.broker_count_v1('task', 'task', 'octet_length(r.title)
  + octet_length(r.priority) + coalesce(octet_length(r.tags::text), 0)
  + coalesce(octet_length(r.assignee), 0) + coalesce(octet_length(r.result), 0)');
