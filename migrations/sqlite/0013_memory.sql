-- What a mesh remembers, found by its words: texts and tags are searched by their stems.

create table memory (
    -- The number by which the search finds the row.
    number integer primary key,
    id text not null unique,
    mesh_id text not null references mesh (id) on delete cascade,
    tags text not null default '[]',
    remembered_by text,
    remembered_by_name text,
    remembered_by_session_name text,
    remembered_at integer not null,
    content text not null
) strict;

create index memory_mesh_idx on memory (mesh_id);

-- The texts stay in the table; here is only where each word stands. The mesh's id is a
-- word too.
create virtual table memory_search using fts5 (
    mesh, content, tags, content = '', contentless_delete = 1, tokenize = 'porter unicode61'
);

create trigger memory_search_insert after insert on memory begin
    insert into memory_search (rowid, mesh, content, tags)
    values (new.number, new.mesh_id, new.content,
        (select group_concat(value, ' ') from json_each(new.tags)));
end;

create trigger memory_search_update after update of mesh_id, content, tags on memory begin
    delete from memory_search where rowid = old.number;
    insert into memory_search (rowid, mesh, content, tags)
    values (new.number, new.mesh_id, new.content,
        (select group_concat(value, ' ') from json_each(new.tags)));
end;

create trigger memory_search_delete after delete on memory begin
    delete from memory_search where rowid = old.number;
end;

create trigger memory_usage_insert after insert on memory begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'memory', 1, octet_length(new.content) + octet_length(new.tags))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger memory_usage_update after update of content, tags on memory begin
    update usage
    set bytes = bytes + octet_length(new.content) + octet_length(new.tags)
        - octet_length(old.content) - octet_length(old.tags)
    where mesh_id = new.mesh_id and kind = 'memory';
end;

create trigger memory_usage_delete after delete on memory begin
    update usage
    set rows = rows - 1, bytes = bytes - octet_length(old.content) - octet_length(old.tags)
    where mesh_id = old.mesh_id and kind = 'memory';
end;
