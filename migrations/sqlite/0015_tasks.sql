-- Tasks of a mesh. A claim may run out: then the task is open again, whatever its row
-- says.

create table task (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    title text not null,
    assignee text,
    priority text not null,
    status text not null,
    tags text not null,
    result text,
    created_by_name text,
    claimed_by_name text,
    claimed_by_member text,
    claim_lease_ms integer,
    claim_expires_at integer,
    changed_by_name text,
    created_at integer not null,
    claimed_at integer,
    completed_at integer,
    seq integer
) strict;

create index task_newest_idx on task (mesh_id, created_at desc, id desc);
create index task_seq_idx on task (mesh_id, seq) where seq is not null;
create index task_expiry_idx on task (claim_expires_at)
where status = 'claimed' and claim_expires_at is not null;
create index task_done_idx on task (completed_at) where status = 'done';
create index task_mesh_done_idx on task (mesh_id, completed_at) where status = 'done';

create trigger task_usage_insert after insert on task begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'task', 1, octet_length(new.title) + octet_length(new.tags)
        + octet_length(new.priority) + coalesce(octet_length(new.assignee), 0)
        + coalesce(octet_length(new.result), 0))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger task_usage_update after update on task begin
    update usage
    set bytes = bytes + octet_length(new.title) + octet_length(new.tags)
        + octet_length(new.priority) + coalesce(octet_length(new.assignee), 0)
        + coalesce(octet_length(new.result), 0)
        - octet_length(old.title) - octet_length(old.tags)
        - octet_length(old.priority) - coalesce(octet_length(old.assignee), 0)
        - coalesce(octet_length(old.result), 0)
    where mesh_id = new.mesh_id and kind = 'task';
end;

create trigger task_usage_delete after delete on task begin
    update usage
    set rows = rows - 1, bytes = bytes - octet_length(old.title) - octet_length(old.tags)
        - octet_length(old.priority) - coalesce(octet_length(old.assignee), 0)
        - coalesce(octet_length(old.result), 0)
    where mesh_id = old.mesh_id and kind = 'task';
end;
