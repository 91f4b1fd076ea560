-- Messages to many that the broker cannot read.

-- By the key that sealed it; of a message in clear, none.
alter table message_queue add column signature text;
-- The key of the ciphertext, sealed for each member that can open it, by the member's key.
alter table message_queue add column sealed_keys text;

-- Whether the member's newest client opens such messages.
alter table member add column opens_sealed integer not null default 0;
