-- Claims are found by their mailboxes.
drop index message_queue_claim_idx;
