-- What envelopes say of themselves, an element per envelope that says anything. Called in
-- the statement that takes them, after it has.
create or replace function mesh.broker_properties_v2(
  p_id text[],
  p_thread text[],
  p_expects_reply boolean[],
  p_supersedes text[],
  p_receipt text[],
  p_hop integer[],
  p_expires_at timestamp[],
  p_signature text[],
  p_sealed_keys text[]
)
returns void
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
begin
  update mesh.message_queue q
  set thread_id = e.thread, expects_reply = e.expects_reply, supersedes = e.supersedes,
    receipt = e.receipt, hop = e.hop, expires_at = e.expires_at,
    signature = e.signature, sealed_keys = e.sealed_keys::jsonb
  from unnest(p_id, p_thread, p_expects_reply, p_supersedes, p_receipt, p_hop, p_expires_at,
      p_signature, p_sealed_keys)
    as e (id, thread, expects_reply, supersedes, receipt, hop, expires_at,
      signature, sealed_keys)
  where q.id = e.id;
end
$$;
