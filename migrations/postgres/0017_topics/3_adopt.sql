-- Posts that another program wrote get their place in the mesh's order, each with its
-- audit row, at most so many at once; what that program queued for topics is done. Returns
-- the last of their seqs. Takes no lock where there is nothing to do.
create or replace function mesh.broker_adopt_posts_v1(
  p_now timestamp,
  p_time text,
  p_locks bigint[],
  p_mesh text,
  p_limit integer
)
returns bigint
language plpgsql
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_id text[];
  v_topic text[];
  v_member text[];
  v_name text[];
  v_session_key text[];
  v_priority text[];
  v_reply text[];
  v_seq bigint[];
begin
  update mesh.message_queue q set delivered_at = p_now
  from mesh.topic t
  where t.mesh_id = p_mesh
    and hashtextextended(q.target_spec, 0) = hashtextextended('#' || t.id, 0)
    and q.target_spec = '#' || t.id and q.mesh_id = p_mesh
    and q.delivered_at is null and q.seq is null;
  perform from mesh.topic t
  join mesh.topic_message p on p.topic_id = t.id and p.seq is null
  where t.mesh_id = p_mesh limit 1;
  if not found then
    return null;
  end if;
  perform mesh.broker_lock_v1(p_locks);
  select array_agg(n.id order by n.at), array_agg(n.topic_id order by n.at),
    array_agg(n.sender_member_id order by n.at), array_agg(n.name order by n.at),
    array_agg(n.sender_session_pubkey order by n.at), array_agg(n.priority order by n.at),
    array_agg(n.reply_to_id order by n.at)
  into v_id, v_topic, v_member, v_name, v_session_key, v_priority, v_reply
  from (
    select p.id, p.topic_id, p.sender_member_id, m.display_name as name,
      p.sender_session_pubkey, coalesce(p.priority::text, 'next') as priority, p.reply_to_id,
      row_number() over (order by p.created_at, p.id) as at
    from mesh.topic t
    join mesh.topic_message p on p.topic_id = t.id and p.seq is null
    join mesh.member m on m.id = p.sender_member_id
    where t.mesh_id = p_mesh
    order by p.created_at, p.id limit p_limit
  ) n;
  if v_id is null then
    return null;
  end if;
  v_seq := mesh.broker_append_v2(p_now, p_time, '{}',
    array_fill(p_mesh, array[cardinality(v_id)]), v_member, v_name,
    array_fill('message_sent'::text, array[cardinality(v_id)]),
    (select array_agg('{"priority":"' || e.priority || '","targetSpec":'
        || to_json('#' || e.topic)::text || '}' order by e.at)
     from unnest(v_priority, v_topic) with ordinality as e (priority, topic, at)),
    null);
  insert into mesh.message_queue (id, mesh_id, sender_member_id, sender_name,
    sender_session_pubkey, target_spec, priority, nonce, ciphertext, created_at,
    delivered_at, reply_to_id, seq, multicast)
  select e.id, p_mesh, e.member, e.name, e.session_key, '#' || e.topic,
    e.priority::mesh.message_priority, '', '', p_now, p_now, e.reply, e.seq, true
  from unnest(v_id, v_topic, v_member, v_name, v_session_key, v_priority, v_reply, v_seq)
    as e (id, topic, member, name, session_key, priority, reply, seq)
  on conflict do nothing;
  update mesh.topic_message p set seq = e.seq
  from unnest(v_id, v_seq) as e (id, seq)
  where p.id = e.id;
  return v_seq[cardinality(v_seq)];
end
$$;
