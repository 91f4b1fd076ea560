-- What a mesh asks of messages to many: off, preferred, required.
alter table mesh add column sealing text not null default 'preferred';

-- The newest key that members hold in common to read what is kept for all of them: of the
-- mesh, or of a topic. The broker never has it. `earlier`: the keys before it, under it.
create table common_key (
    mesh_id text not null references mesh (id) on delete cascade,
    -- 'mesh', or a topic's id.
    scope text not null,
    epoch integer not null,
    key_hash text not null,
    maker_key text not null,
    signature text not null,
    earlier text,
    created_at integer not null,
    primary key (mesh_id, scope)
) strict;

-- It, sealed for each member that has it.
create table common_key_copy (
    mesh_id text not null,
    scope text not null,
    member_id text not null references member (id) on delete cascade,
    sealed text not null,
    sealed_by text not null,
    primary key (mesh_id, scope, member_id),
    foreign key (mesh_id, scope) references common_key (mesh_id, scope) on delete cascade
) strict;
