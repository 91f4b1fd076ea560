-- What those need who look at a mesh as a whole: how many tasks are of each status, without
-- a look at their rows; and what is sent next.

create index if not exists task_status_idx on mesh.task (mesh_id, claim_expires_at, status);
create index if not exists scheduled_message_next_idx
on mesh.scheduled_message (mesh_id, due_at, id) where due_at is not null;
