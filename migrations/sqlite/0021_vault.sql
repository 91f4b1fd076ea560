-- The vault: what members keep for themselves, sealed by their own clients.

create table vault_entry (
    id text primary key not null,
    mesh_id text not null references mesh (id) on delete cascade,
    member_id text not null references member (id) on delete cascade,
    key text not null,
    ciphertext text not null,
    nonce text not null,
    sealed_key text not null,
    entry_type text not null default 'env',
    mount_path text,
    description text,
    created_at integer not null,
    updated_at integer not null
) strict;

create unique index vault_entry_mesh_member_key_idx on vault_entry (mesh_id, member_id, key);
create index vault_entry_member_idx on vault_entry (member_id);

create trigger vault_entry_usage_insert after insert on vault_entry begin
    insert into usage (mesh_id, kind, rows, bytes)
    values (new.mesh_id, 'vault', 1,
        octet_length(new.key) + octet_length(new.ciphertext) + octet_length(new.nonce)
        + octet_length(new.sealed_key) + octet_length(coalesce(new.mount_path, ''))
        + octet_length(coalesce(new.description, '')))
    on conflict (mesh_id, kind) do update
    set rows = rows + excluded.rows, bytes = bytes + excluded.bytes;
end;

create trigger vault_entry_usage_update after update on vault_entry begin
    update usage
    set bytes = bytes
        + octet_length(new.key) + octet_length(new.ciphertext) + octet_length(new.nonce)
        + octet_length(new.sealed_key) + octet_length(coalesce(new.mount_path, ''))
        + octet_length(coalesce(new.description, ''))
        - octet_length(old.key) - octet_length(old.ciphertext) - octet_length(old.nonce)
        - octet_length(old.sealed_key) - octet_length(coalesce(old.mount_path, ''))
        - octet_length(coalesce(old.description, ''))
    where mesh_id = new.mesh_id and kind = 'vault';
end;

create trigger vault_entry_usage_delete after delete on vault_entry begin
    update usage
    set rows = rows - 1, bytes = bytes
        - octet_length(old.key) - octet_length(old.ciphertext) - octet_length(old.nonce)
        - octet_length(old.sealed_key) - octet_length(coalesce(old.mount_path, ''))
        - octet_length(coalesce(old.description, ''))
    where mesh_id = old.mesh_id and kind = 'vault';
end;
