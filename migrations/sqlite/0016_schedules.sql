-- Messages that are sent later, each in the transaction that takes its row away or moves
-- it on; and what a message of that kind says of itself.

create table scheduled_message (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    presence_id text,
    member_id text not null references member (id) on delete cascade,
    "to" text not null,
    message text not null,
    nonce text,
    deliver_at integer not null,
    cron text,
    timezone text,
    subtype text,
    fired_count integer not null default 0,
    fired_at integer,
    created_at integer not null,
    due_at integer
) strict;

create index scheduled_message_due_idx on scheduled_message (due_at) where due_at is not null;
create index scheduled_message_list_idx
on scheduled_message (mesh_id, member_id, created_at, id);
create index scheduled_message_member_idx on scheduled_message (member_id);

alter table message_queue add column subtype text;
alter table message_queue add column late integer;

create trigger scheduled_message_usage_insert after insert on scheduled_message begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'scheduled_message', 1, octet_length(new."to") + octet_length(new.message)
        + coalesce(octet_length(new.nonce), 0) + coalesce(octet_length(new.cron), 0))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger scheduled_message_usage_delete after delete on scheduled_message begin
    update usage
    set rows = rows - 1, bytes = bytes - octet_length(old."to") - octet_length(old.message)
        - coalesce(octet_length(old.nonce), 0) - coalesce(octet_length(old.cron), 0)
    where mesh_id = old.mesh_id and kind = 'scheduled_message';
end;
