-- What this broker keeps beside the columns that an installation has.

alter table mesh.message_queue
  -- The mesh's order of commits: the id of the row's audit row. Null if another
  -- program wrote the row.
  add column if not exists seq bigint,
  -- Whom a multicast is for is decided by the positions of the presences; such
  -- a row has `delivered_at` from the start.
  add column if not exists multicast boolean,
  add column if not exists reply_to_id text,
  add column if not exists sender_name text;

alter table mesh.presence
  -- Every multicast of the mesh up to this `seq` is done with.
  add column if not exists multicast_position bigint,
  -- The node that held it last.
  add column if not exists node text,
  -- hostname, peerType, channel, model, visible, profile, stats
  add column if not exists attributes jsonb;

-- Idempotence keys of queue rows that retention has deleted.
create table if not exists mesh.send_key (
  mesh_id text not null,
  sender_member_id text not null,
  client_message_id text not null,
  message_id text not null,
  created_at timestamp not null
);

-- Sealed bytes do not get smaller: no attempt to compress them.
alter table mesh.message_queue alter column ciphertext set storage external;
-- Pings and changes of status stay on their page.
alter table mesh.presence set (fillfactor = 70);

-- Text of any length by its hash: small keys, quickly compared. Not unique:
-- every writer of a key holds the lock of its mesh's chain and looks first.
create index if not exists message_queue_client_id_idx
  on mesh.message_queue (hashtextextended(client_message_id, 0))
  where client_message_id is not null;
create index if not exists send_key_client_id_idx
  on mesh.send_key (hashtextextended(client_message_id, 0));
create index if not exists send_key_created_idx on mesh.send_key (created_at);
-- A mailbox in its order.
create index if not exists message_queue_mailbox_idx
  on mesh.message_queue (hashtextextended(target_spec, 0), seq nulls first)
  where delivered_at is null;
create index if not exists message_queue_multicast_idx
  on mesh.message_queue (mesh_id, seq) where multicast;
create index if not exists message_queue_delivered_idx
  on mesh.message_queue (delivered_at) where delivered_at is not null;

create index if not exists member_mesh_key_idx on mesh.member (mesh_id, peer_pubkey);
create index if not exists presence_session_key_idx on mesh.presence (session_pubkey)
  where session_pubkey is not null;
create index if not exists presence_open_member_idx on mesh.presence (member_id)
  where disconnected_at is null;
create index if not exists presence_open_cwd_idx on mesh.presence using hash (cwd)
  where disconnected_at is null;
create index if not exists peer_state_member_idx on mesh.peer_state (member_id);
create index if not exists audit_log_mesh_id_id_idx on mesh.audit_log (mesh_id, id);
create index if not exists mesh_slug_idx on mesh.mesh (slug);
create index if not exists invite_mesh_idx on mesh.invite (mesh_id);

-- What `on delete cascade on update cascade` would do for the tables that have
-- no foreign keys.
create or replace function mesh.broker_follow_v1()
returns trigger
language plpgsql
as $$
begin
  if tg_op = 'UPDATE' then
    if tg_table_name = 'mesh' then
      update mesh.message_queue set mesh_id = new.id where mesh_id = old.id;
      update mesh.audit_log set mesh_id = new.id where mesh_id = old.id;
    else
      update mesh.message_queue set sender_member_id = new.id where sender_member_id = old.id;
    end if;
  elsif tg_table_name = 'mesh' then
    delete from mesh.message_queue where mesh_id = old.id;
    delete from mesh.audit_log where mesh_id = old.id;
  else
    delete from mesh.message_queue where sender_member_id = old.id;
  end if;
  return null;
end
$$;

do $$
declare
  parent text;
begin
  foreach parent in array array['mesh', 'member'] loop
    execute format('drop trigger if exists broker_follow_delete on mesh.%I', parent);
    execute format('create trigger broker_follow_delete after delete on mesh.%I
      for each row execute function mesh.broker_follow_v1()', parent);
    execute format('drop trigger if exists broker_follow_update on mesh.%I', parent);
    execute format('create trigger broker_follow_update after update of id on mesh.%I
      for each row when (old.id is distinct from new.id)
      execute function mesh.broker_follow_v1()', parent);
  end loop;
end
$$;
