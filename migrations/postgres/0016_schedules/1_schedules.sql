-- Messages that are sent later, each in the transaction that takes its row away or moves
-- it on. A row without `due_at` is not sent: it was, or it was cancelled, or another
-- program sends it. Those that wait here from before are taken over.

alter table mesh.scheduled_message add column if not exists nonce text;
alter table mesh.scheduled_message add column if not exists timezone text;
alter table mesh.scheduled_message add column if not exists due_at timestamp;

update mesh.scheduled_message set due_at = deliver_at
where due_at is null and deliver_at is not null and not cancelled
  and (cron is not null or fired_at is null);

create index if not exists scheduled_message_due_idx on mesh.scheduled_message (due_at)
where due_at is not null;
create index if not exists scheduled_message_member_idx
on mesh.scheduled_message (mesh_id, member_id, created_at, id) where due_at is not null;

-- What a message of that kind says of itself.
alter table mesh.message_queue add column if not exists subtype text;
alter table mesh.message_queue add column if not exists late boolean;

select mesh.broker_count_v1('scheduled_message', 'scheduled_message', 'octet_length(r."to")
  + octet_length(r.message) + coalesce(octet_length(r.nonce), 0)
  + coalesce(octet_length(r.cron), 0)');
