-- Tells nodes what another program has changed: `<mesh id> <who>` on the
-- channel `claudemesh_changes`, where who is the session's application name.
create or replace function mesh.broker_tell_v1()
returns trigger
language plpgsql
as $$
declare
  v_row record := case when tg_op = 'DELETE' then old else new end;
  v_mesh text;
begin
  if tg_table_name = 'mesh' then
    v_mesh := v_row.id;
  else
    v_mesh := v_row.mesh_id;
  end if;
  perform pg_notify('claudemesh_changes', v_mesh || ' ' || current_setting('application_name'));
  return null;
end
$$;

-- `create or replace trigger` would ask for Postgres 14.
drop trigger if exists broker_tell on mesh.mesh;
create trigger broker_tell
  after update of name, slug, owner_user_id, owner_pubkey, self_editable, archived_at on mesh.mesh
  for each row
  when ((old.name, old.slug, old.owner_user_id, old.owner_pubkey, old.self_editable,
         old.archived_at)
    is distinct from (new.name, new.slug, new.owner_user_id, new.owner_pubkey,
         new.self_editable, new.archived_at))
  execute function mesh.broker_tell_v1();

drop trigger if exists broker_tell on mesh.member;
create trigger broker_tell
  after update of peer_pubkey, display_name, role, role_tag, default_groups, message_mode,
    revoked_at, peer_grants, user_id on mesh.member
  for each row
  when ((old.peer_pubkey, old.display_name, old.role, old.role_tag, old.default_groups,
         old.message_mode, old.revoked_at, old.peer_grants, old.user_id)
    is distinct from (new.peer_pubkey, new.display_name, new.role, new.role_tag,
         new.default_groups, new.message_mode, new.revoked_at, new.peer_grants, new.user_id))
  execute function mesh.broker_tell_v1();

drop trigger if exists broker_tell_set on mesh.member;
create trigger broker_tell_set
  after insert or delete on mesh.member
  for each row execute function mesh.broker_tell_v1();

-- Envelopes that another program queues.
drop trigger if exists broker_tell on mesh.message_queue;
create trigger broker_tell
  after insert on mesh.message_queue
  for each row when (new.seq is null)
  execute function mesh.broker_tell_v1();
