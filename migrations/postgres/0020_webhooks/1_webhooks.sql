-- Webhooks: addresses that other programs call, and addresses that the broker calls.
--
-- One with a `url` is called by the broker. What it is to be told waits in
-- `broker_webhook_outbox`, in its order; the trigger below puts it there in the
-- transaction of the audit row that tells of it, whoever writes that. One without is
-- called by others, under its secret.

alter table mesh.webhook add column if not exists signing text;
alter table mesh.webhook add column if not exists signing_secret text;
-- Whether what is posted is kept for members that are away.
alter table mesh.webhook add column if not exists durable boolean not null default false;
alter table mesh.webhook add column if not exists url text;
alter table mesh.webhook add column if not exists events jsonb not null default '[]';
-- Whether it asks for events that have no audit row.
alter table mesh.webhook add column if not exists noted boolean not null default false;
-- The next try, and how many of this event's have failed.
alter table mesh.webhook add column if not exists next_at timestamp not null default 'epoch';
alter table mesh.webhook add column if not exists attempts bigint not null default 0;
-- Which node calls it, until when.
alter table mesh.webhook add column if not exists claim_id text;
alter table mesh.webhook add column if not exists claim_expires_at timestamp;
alter table mesh.webhook add column if not exists dead_letters bigint not null default 0;
alter table mesh.webhook add column if not exists last_error text;
alter table mesh.webhook add column if not exists delivered_at timestamp;

create index if not exists webhook_secret_idx
  on mesh.webhook (mesh_id, hashtextextended(secret, 0)) where active and url is null;
create index if not exists webhook_mesh_url_idx
  on mesh.webhook (mesh_id) where active and url is not null;
create index if not exists webhook_noted_idx on mesh.webhook (mesh_id) where noted;

create table if not exists mesh.broker_webhook_outbox (
  id bigint generated always as identity primary key,
  webhook_id text not null references mesh.webhook (id) on delete cascade on update cascade,
  event text not null,
  -- What the event is about, where one that waits stands for all of its kind.
  subject text,
  data jsonb not null,
  created_at timestamp not null
);

create index if not exists broker_webhook_outbox_webhook_idx
  on mesh.broker_webhook_outbox (webhook_id, id);
create unique index if not exists broker_webhook_outbox_subject_idx
  on mesh.broker_webhook_outbox (webhook_id, event, subject) where subject is not null;

-- Calls that were answered, for a day: the same call again is answered the same.
create table if not exists mesh.broker_webhook_call (
  webhook_id text not null references mesh.webhook (id) on delete cascade on update cascade,
  key_digest text not null,
  delivered bigint not null,
  created_at timestamp not null,
  primary key (webhook_id, key_digest)
);

create index if not exists broker_webhook_call_created_idx
  on mesh.broker_webhook_call (created_at);

select mesh.broker_count_v1('webhook', 'webhook',
  'octet_length(r.name) + coalesce(octet_length(r.url), 0)');

-- A thousand events may wait for one webhook; what comes then counts as a dead letter.
create or replace function mesh.broker_webhook_event_v1()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog
as $$
declare
  v_event text := case
    when new.event_type = 'expired' then 'message_expired'
    when left(new.event_type, 5) = 'task_' then 'task'
    else new.event_type end;
  v_hook record;
begin
  for v_hook in
    select w.id,
      (select count(*) from mesh.broker_webhook_outbox o where o.webhook_id = w.id) as waiting
    from mesh.webhook w
    join mesh.member m on m.id = w.created_by and m.revoked_at is null
    where w.mesh_id = new.mesh_id and w.active and w.url is not null and w.events ? v_event
    order by w.id
  loop
    if v_hook.waiting >= 1000 then
      update mesh.webhook
      set dead_letters = dead_letters + 1, last_error = 'too many events wait for it'
      where id = v_hook.id;
    else
      insert into mesh.broker_webhook_outbox (webhook_id, event, data, created_at)
      values (v_hook.id, v_event, jsonb_strip_nulls(jsonb_build_object(
        'seq', new.id,
        'memberId', new.actor_member_id,
        'name', coalesce(
          (select m.display_name from mesh.member m where m.id = new.actor_member_id),
          new.actor_display_name),
        'pubkey', new.payload ->> 'pubkey',
        'messageId', new.payload ->> 'messageId',
        'targetSpec', new.payload ->> 'targetSpec',
        'taskId', new.payload ->> 'taskId',
        'change', case when v_event = 'task' then substr(new.event_type, 6) end)),
        new.created_at);
    end if;
  end loop;
  return null;
end
$$;

drop trigger if exists broker_webhook_event on mesh.audit_log;
create trigger broker_webhook_event
  after insert on mesh.audit_log
  for each row
  when (new.event_type in ('peer_joined', 'peer_left', 'expired')
    or left(new.event_type, 5) = 'task_')
  execute function mesh.broker_webhook_event_v1();
