-- Skills that a mesh shares. What lists show comes first in a row: they read no texts.

create table skill (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    name text not null,
    description text not null,
    tags text not null default '[]',
    author_member_id text,
    author_name text,
    author_session_name text,
    created_at integer not null,
    updated_at integer not null,
    -- Name, description and tags in small letters: what is searched.
    words text not null,
    manifest text,
    instructions text not null
) strict;

create unique index skill_mesh_name_idx on skill (mesh_id, name);

create trigger skill_usage_insert after insert on skill begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'skill', 1, octet_length(new.words) + octet_length(new.instructions)
        + coalesce(octet_length(new.manifest), 0))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger skill_usage_update after update on skill begin
    update usage
    set bytes = bytes + octet_length(new.words) + octet_length(new.instructions)
        + coalesce(octet_length(new.manifest), 0)
        - octet_length(old.words) - octet_length(old.instructions)
        - coalesce(octet_length(old.manifest), 0)
    where mesh_id = new.mesh_id and kind = 'skill';
end;

create trigger skill_usage_delete after delete on skill begin
    update usage
    set rows = rows - 1, bytes = bytes - octet_length(old.words)
        - octet_length(old.instructions) - coalesce(octet_length(old.manifest), 0)
    where mesh_id = old.mesh_id and kind = 'skill';
end;
