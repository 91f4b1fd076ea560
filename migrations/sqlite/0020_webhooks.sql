-- Webhooks: addresses that other programs call, and addresses that the broker calls.
--
-- One with a `url` is called by the broker. What it is to be told waits in
-- `webhook_outbox`, in its order; the trigger below puts it there in the transaction of
-- the audit row that tells of it, whoever writes that. One without is called by others,
-- under its secret.

create table webhook (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    name text not null,
    secret text not null,
    -- SHA-256 of the secret: what a call finds its row by.
    secret_digest text not null,
    active integer not null default 1,
    created_by text not null references member (id) on delete cascade,
    created_at integer not null,
    -- Whether what is posted is kept for members that are away.
    durable integer not null default 0,
    signing text check (signing in ('standard', 'github')),
    signing_secret text,
    url text,
    events text not null default '[]',
    -- Whether it asks for events that have no audit row.
    noted integer not null default 0,
    -- The next try, and how many of this event's have failed.
    next_at integer not null default 0,
    attempts integer not null default 0,
    -- Which node calls it, until when.
    claim_id text,
    claim_expires_at integer,
    dead_letters integer not null default 0,
    last_error text,
    delivered_at integer
) strict;

create unique index webhook_mesh_name_idx on webhook (mesh_id, name);
create index webhook_secret_idx on webhook (mesh_id, secret_digest)
    where active = 1 and url is null;
create index webhook_mesh_url_idx on webhook (mesh_id) where active = 1 and url is not null;
create index webhook_noted_idx on webhook (mesh_id) where noted = 1;

-- `autoincrement`: an id is never given twice, so a receiver can tell repeats.
create table webhook_outbox (
    id integer primary key autoincrement,
    webhook_id text not null references webhook (id) on delete cascade,
    event text not null,
    -- What the event is about, where one that waits stands for all of its kind.
    subject text,
    data text not null,
    created_at integer not null
) strict;

create index webhook_outbox_webhook_idx on webhook_outbox (webhook_id, id);
create unique index webhook_outbox_subject_idx on webhook_outbox (webhook_id, event, subject)
    where subject is not null;

-- Calls that were answered, for a day: the same call again is answered the same.
create table webhook_call (
    webhook_id text not null references webhook (id) on delete cascade,
    key_digest text not null,
    delivered integer not null,
    created_at integer not null,
    primary key (webhook_id, key_digest)
) strict, without rowid;

create index webhook_call_created_idx on webhook_call (created_at);

create trigger webhook_usage_insert after insert on webhook begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'webhook', 1,
        octet_length(new.name) + coalesce(octet_length(new.url), 0))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger webhook_usage_update after update of name, url on webhook begin
    update usage
    set bytes = bytes + octet_length(new.name) + coalesce(octet_length(new.url), 0)
        - octet_length(old.name) - coalesce(octet_length(old.url), 0)
    where mesh_id = new.mesh_id and kind = 'webhook';
end;

create trigger webhook_usage_delete after delete on webhook begin
    update usage
    set rows = rows - 1,
        bytes = bytes - octet_length(old.name) - coalesce(octet_length(old.url), 0)
    where mesh_id = old.mesh_id and kind = 'webhook';
end;

-- A thousand events may wait for one webhook; what comes then counts as a dead letter.
create trigger webhook_event after insert on audit_log
when new.event_type in ('peer_joined', 'peer_left', 'expired')
    or substr(new.event_type, 1, 5) = 'task_'
begin
    update webhook
    set dead_letters = dead_letters + 1, last_error = 'too many events wait for it'
    where mesh_id = new.mesh_id and active = 1 and url is not null
        and exists (
            select 1 from json_each(events) wanted
            where wanted.value = case
                when new.event_type = 'expired' then 'message_expired'
                when substr(new.event_type, 1, 5) = 'task_' then 'task'
                else new.event_type end)
        and (select count(*) from webhook_outbox o where o.webhook_id = webhook.id) >= 1000;
    insert into webhook_outbox (webhook_id, event, data, created_at)
    select w.id, wanted.value,
        json_patch('{}', json_object(
            'seq', new.id,
            'memberId', new.actor_member_id,
            'name', coalesce(
                (select m.display_name from member m where m.id = new.actor_member_id),
                new.actor_display_name),
            'pubkey', new.payload ->> 'pubkey',
            'messageId', new.payload ->> 'messageId',
            'targetSpec', new.payload ->> 'targetSpec',
            'taskId', new.payload ->> 'taskId',
            'change', case when wanted.value = 'task' then substr(new.event_type, 6) end)),
        new.created_at
    from webhook w
    join member maker on maker.id = w.created_by and maker.revoked_at is null
    join json_each(w.events) wanted
    where w.mesh_id = new.mesh_id and w.active = 1 and w.url is not null
        and wanted.value = case
            when new.event_type = 'expired' then 'message_expired'
            when substr(new.event_type, 1, 5) = 'task_' then 'task'
            else new.event_type end
        and (select count(*) from webhook_outbox o where o.webhook_id = w.id) < 1000;
end;
