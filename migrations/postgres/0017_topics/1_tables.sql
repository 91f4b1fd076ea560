-- Topics: what this broker keeps beside the columns that an installation has.
--
-- A post has two rows. The one in `message_queue`, a multicast without content, has
-- its place in the mesh's order and its sender's own id; it goes with what was
-- delivered. The one in `topic_message` is the topic's history.

alter table mesh.topic
  -- `client` or `broker`; null where that is not known.
  add column if not exists key_made_by text,
  -- Grows with every change of who is in it.
  add column if not exists roster bigint not null default 0;

alter table mesh.topic_member
  -- Posts after this `seq` are for the member.
  add column if not exists joined_seq bigint,
  -- Posts up to this `seq` the member has had on one of its connections.
  add column if not exists delivered_seq bigint;

alter table mesh.topic_message
  -- The mesh's order of commits: the id of the post's audit row. Null until a post
  -- that another program wrote has its place; 0 in rows that were there before.
  add column if not exists seq bigint default 0,
  add column if not exists priority mesh.message_priority,
  add column if not exists sender_name text;
alter table mesh.topic_message alter column seq drop default;
alter table mesh.topic_message alter column ciphertext set storage external;

-- Who may join a topic that is not public.
create table if not exists mesh.topic_invite (
  topic_id text not null references mesh.topic (id) on delete cascade on update cascade,
  member_id text not null references mesh.member (id) on delete cascade on update cascade,
  invited_by_member_id text not null,
  created_at timestamp not null,
  primary key (topic_id, member_id)
);

create index if not exists topic_message_history_idx
  on mesh.topic_message (topic_id, created_at, id);
create index if not exists topic_message_order_idx
  on mesh.topic_message (topic_id, seq) where seq > 0;
create index if not exists topic_message_new_idx
  on mesh.topic_message (topic_id) where seq is null;
create index if not exists topic_message_age_idx on mesh.topic_message (created_at);
create index if not exists notification_recipient_idx
  on mesh.notification (recipient_member_id, created_at);

-- Whoever joins, by whatever program, is there for what comes after.
create or replace function mesh.broker_topic_comes_v1()
returns trigger
language plpgsql
as $$
declare
  v_newest bigint;
begin
  if new.joined_seq is null then
    select max(a.id) into v_newest
    from mesh.audit_log a
    where a.mesh_id = (select t.mesh_id from mesh.topic t where t.id = new.topic_id);
    new.joined_seq := coalesce(v_newest, 0);
  end if;
  new.delivered_seq := coalesce(new.delivered_seq, new.joined_seq);
  return new;
end
$$;

create or replace function mesh.broker_topic_roster_v1()
returns trigger
language plpgsql
as $$
begin
  update mesh.topic set roster = roster + 1
  where id = case when tg_op = 'DELETE' then old.topic_id else new.topic_id end;
  return null;
end
$$;

drop trigger if exists broker_topic_comes on mesh.topic_member;
create trigger broker_topic_comes before insert on mesh.topic_member
  for each row execute function mesh.broker_topic_comes_v1();
drop trigger if exists broker_topic_roster on mesh.topic_member;
create trigger broker_topic_roster after insert or delete on mesh.topic_member
  for each row execute function mesh.broker_topic_roster_v1();

select mesh.broker_count_v1('topic', 'topics',
  'octet_length(r.name) + coalesce(octet_length(r.description), 0)');
