-- What members say that they work on: one context for each member of a mesh.

create table context (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    member_id text not null references member (id) on delete cascade,
    presence_id text,
    peer_name text,
    peer_session_name text,
    tags text not null default '[]',
    updated_at integer not null,
    seq integer not null,
    summary text not null,
    -- The summary in small letters: what is searched.
    words text not null,
    files_read text not null default '[]',
    key_findings text not null default '[]'
) strict;

create unique index context_mesh_member_idx on context (mesh_id, member_id);
create index context_newest_idx on context (mesh_id, updated_at, id);
create index context_seq_idx on context (mesh_id, seq);

create trigger context_usage_insert after insert on context begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'context', 1, octet_length(new.summary) + octet_length(new.files_read)
        + octet_length(new.key_findings) + octet_length(new.tags))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger context_usage_update after update on context begin
    update usage
    set bytes = bytes + octet_length(new.summary) + octet_length(new.files_read)
        + octet_length(new.key_findings) + octet_length(new.tags)
        - octet_length(old.summary) - octet_length(old.files_read)
        - octet_length(old.key_findings) - octet_length(old.tags)
    where mesh_id = new.mesh_id and kind = 'context';
end;

create trigger context_usage_delete after delete on context begin
    update usage
    set rows = rows - 1, bytes = bytes - octet_length(old.summary)
        - octet_length(old.files_read) - octet_length(old.key_findings) - octet_length(old.tags)
    where mesh_id = old.mesh_id and kind = 'context';
end;
