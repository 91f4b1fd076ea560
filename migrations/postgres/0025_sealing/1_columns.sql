-- Messages to many that the broker cannot read.

-- By the key that sealed it; of a message in clear, none.
alter table mesh.message_queue add column if not exists signature text;
-- The key of the ciphertext, sealed for each member that can open it, by the member's key.
alter table mesh.message_queue add column if not exists sealed_keys jsonb;

-- Whether the member's newest client opens such messages.
alter table mesh.member add column if not exists opens_sealed boolean not null default false;
