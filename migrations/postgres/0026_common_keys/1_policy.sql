-- What a mesh asks of messages to many: off, preferred, required.
alter table mesh.mesh add column if not exists sealing text not null default 'preferred';

drop trigger if exists broker_tell_sealing on mesh.mesh;
create trigger broker_tell_sealing
  after update of sealing on mesh.mesh
  for each row when (old.sealing is distinct from new.sealing)
  execute function mesh.broker_tell_v1();
