-- The vault is counted as whatever a mesh keeps, and found by its member.

create index if not exists vault_entry_member_idx on mesh.vault_entry (member_id);

select mesh.broker_count_v1('vault_entry', 'vault',
  'octet_length(r.key) + octet_length(r.ciphertext) + octet_length(r.nonce)
    + octet_length(r.sealed_key) + octet_length(coalesce(r.mount_path, ''''))
    + octet_length(coalesce(r.description, ''''))');
