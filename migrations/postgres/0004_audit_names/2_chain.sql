-- The functions that append to a chain, with the second hash. Nodes of earlier
-- releases go on calling `_v1`: their rows have none, and the chain goes on.

-- `broker_append_v1` with the second hash: SHA-256 of the previous row's second hash
-- (where it has none: of its first, as text; `genesis` before the first row), then
-- this row's first hash, as text, and, where there is a name, `|` and the name.
--
-- Appends rows to the chains whose locks it takes, and returns their ids in the
-- order given. Rows of one mesh stand together; those with `p_skip` are left
-- out. `p_payload` is canonical JSON, `p_time` is `p_now` as hashed.
create or replace function mesh.broker_append_v2(
  p_now timestamp,
  p_time text,
  p_locks bigint[],
  p_mesh text[],
  p_actor text[],
  p_name text[],
  p_event text[],
  p_payload text[],
  p_skip boolean[]
)
returns bigint[]
language plpgsql
as $$
declare
  v_rows constant integer := coalesce(cardinality(p_mesh), 0);
  v_sequence constant regclass := pg_get_serial_sequence('mesh.audit_log', 'id');
  v_tail constant text := '|' || p_time;
  v_id bigint[] := array_fill(null::bigint, array[v_rows]);
  v_prev text[] := array_fill(null::text, array[v_rows]);
  v_hash text[] := array_fill(null::text, array[v_rows]);
  v_name_hash bytea[] := array_fill(null::bytea, array[v_rows]);
  v_done text[] := '{}';
  v_mesh text;
  v_head text;
  v_name_head bytea;
begin
  perform mesh.broker_lock_v1(p_locks);
  for i in 1 .. v_rows loop
    continue when p_skip[i];
    if p_mesh[i] is distinct from v_mesh then
      v_mesh := p_mesh[i];
      if v_mesh = any (v_done) then
        raise exception 'rows of one chain must stand together';
      end if;
      v_done := v_done || v_mesh;
      perform from mesh.mesh m where m.id = v_mesh for key share;
      if not found then
        raise exception 'the mesh does not exist' using errcode = 'foreign_key_violation';
      end if;
      select a.hash, a.name_hash into v_head, v_name_head
      from mesh.audit_log a where a.mesh_id = v_mesh order by a.id desc limit 1;
      v_head := coalesce(v_head, 'genesis');
      v_name_head := coalesce(v_name_head, convert_to(v_head, 'UTF8'));
    end if;
    v_id[i] := nextval(v_sequence);
    v_prev[i] := v_head;
    v_head := encode(sha256(convert_to(
      v_head || '|' || v_mesh || '|' || p_event[i] || '|' || coalesce(p_actor[i], 'null')
        || '|' || p_payload[i] || v_tail, 'UTF8')), 'hex');
    v_hash[i] := v_head;
    v_name_head := sha256(v_name_head
      || convert_to(v_head || coalesce('|' || p_name[i], ''), 'UTF8'));
    v_name_hash[i] := v_name_head;
  end loop;
  insert into mesh.audit_log (id, mesh_id, event_type, actor_member_id, actor_display_name,
    payload, prev_hash, hash, created_at, name_hash)
  overriding system value
  select e.id, e.mesh, e.event, e.actor, e.name, e.payload::jsonb, e.prev, e.hash, p_now,
    e.name_hash
  from (
    select unnest(v_id) as id, unnest(p_mesh) as mesh, unnest(p_event) as event,
      unnest(p_actor) as actor, unnest(p_name) as name, unnest(p_payload) as payload,
      unnest(v_prev) as prev, unnest(v_hash) as hash, unnest(v_name_hash) as name_hash
  ) e
  where e.id is not null;
  return v_id;
end
$$;

-- `broker_accept_v1` over `broker_append_v2`.
--
-- Takes envelopes: queue row and audit row each. Envelopes of one mesh stand
-- together; no idempotence key is in the batch twice; `p_senders` names each
-- sender once. The plans are pinned: a plan made while the tables were small
-- would scan them once they are not.
create or replace function mesh.broker_accept_v2(
  p_now timestamp,
  p_time text,
  p_locks bigint[],
  p_id text[],
  p_mesh text[],
  p_member text[],
  p_name text[],
  p_session_key text[],
  p_target text[],
  p_multicast boolean[],
  p_priority text[],
  p_nonce text[],
  p_ciphertext text[],
  p_client_id text[],
  p_fingerprint text[],
  p_reply_to text[],
  p_claim_id text[],
  p_claim_until timestamp[],
  p_payload text[],
  p_senders text[],
  out o_seq bigint[],
  out o_previous bigint[],
  out o_duplicate text[]
)
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  v_rows constant integer := cardinality(p_id);
  v_skip boolean[];
  v_mesh text;
  v_last bigint;
  v_senders integer;
begin
  perform mesh.broker_lock_v1(p_locks);
  select count(*) into v_senders from (
    select from mesh.member m where m.id = any (p_senders) for key share
  ) held;
  if v_senders < cardinality(p_senders) then
    raise exception 'a sender does not exist' using errcode = 'foreign_key_violation';
  end if;
  select array_agg(k.known order by k.at), array_agg(k.known is not null order by k.at)
  into o_duplicate, v_skip
  from (
    select e.at, case when e.client_id is not null then coalesce(
      (select q.id from mesh.message_queue q
       where hashtextextended(q.client_message_id, 0) = hashtextextended(e.client_id, 0)
         and q.client_message_id = e.client_id and q.mesh_id = e.mesh
         and q.sender_member_id = e.member
       limit 1),
      (select s.message_id from mesh.send_key s
       where hashtextextended(s.client_message_id, 0) = hashtextextended(e.client_id, 0)
         and s.client_message_id = e.client_id and s.mesh_id = e.mesh
         and s.sender_member_id = e.member
       limit 1)) end as known
    from (
      select unnest(p_mesh) as mesh, unnest(p_client_id) as client_id,
        unnest(p_member) as member, generate_subscripts(p_mesh, 1) as at
    ) e
  ) k;
  o_previous := array_fill(0::bigint, array[v_rows]);
  o_seq := mesh.broker_append_v2(p_now, p_time, '{}', p_mesh, p_member, p_name,
    array_fill('message_sent'::text, array[v_rows]), p_payload, v_skip);
  if true = any (p_multicast) then
    for i in 1 .. v_rows loop
      continue when v_skip[i] or not p_multicast[i];
      if p_mesh[i] is distinct from v_mesh then
        v_mesh := p_mesh[i];
        v_last := mesh.broker_position_v1(v_mesh);
      end if;
      o_previous[i] := v_last;
      v_last := o_seq[i];
    end loop;
  end if;
  insert into mesh.message_queue (id, mesh_id, sender_member_id, sender_name,
    sender_session_pubkey, target_spec, priority, nonce, ciphertext, created_at, delivered_at,
    client_message_id, request_fingerprint, reply_to_id, claimed_at, claim_id,
    claim_expires_at, seq, multicast)
  select e.id, e.mesh, e.member, e.name, e.session_key, e.target,
    e.priority::mesh.message_priority, e.nonce, e.ciphertext, p_now,
    case when e.multicast then p_now end, e.client_id, e.fingerprint, e.reply_to,
    case when e.claim_id is not null then p_now end, e.claim_id, e.claim_until, e.seq,
    e.multicast
  from (
    select unnest(o_seq) as seq, unnest(p_id) as id, unnest(p_mesh) as mesh,
      unnest(p_member) as member, unnest(p_name) as name,
      unnest(p_session_key) as session_key, unnest(p_target) as target,
      unnest(p_multicast) as multicast, unnest(p_priority) as priority,
      unnest(p_nonce) as nonce, unnest(p_ciphertext) as ciphertext,
      unnest(p_client_id) as client_id, unnest(p_fingerprint) as fingerprint,
      unnest(p_reply_to) as reply_to, unnest(p_claim_id) as claim_id,
      unnest(p_claim_until) as claim_until
  ) e
  where e.seq is not null;
end
$$;
