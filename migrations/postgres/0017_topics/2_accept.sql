-- `broker_accept_v2` for a batch with posts to topics. A batch without any does not
-- come here.
--
-- What is in a post stands in `p_post_*` alone, an element per post: `p_row` is its row
-- among the envelopes, whose own nonce and ciphertext are empty. Mentions name their
-- row likewise. `o_roster` has the version of the topic's roster at the commit.
create or replace function mesh.broker_accept_topics_v1(
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
  p_row integer[],
  p_topic text[],
  p_post_nonce text[],
  p_post_ciphertext text[],
  p_version integer[],
  p_mention_row integer[],
  p_mention_topic text[],
  p_mention_id text[],
  p_mention_member text[],
  out o_seq bigint[],
  out o_previous bigint[],
  out o_duplicate text[],
  out o_roster bigint[]
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
  v_posts constant integer := cardinality(p_row);
  v_roster bigint;
begin
  select a.o_seq, a.o_previous, a.o_duplicate into o_seq, o_previous, o_duplicate
  from mesh.broker_accept_v2(p_now, p_time, p_locks, p_id, p_mesh, p_member, p_name,
    p_session_key, p_target, p_multicast, p_priority, p_nonce, p_ciphertext, p_client_id,
    p_fingerprint, p_reply_to, p_claim_id, p_claim_until, p_payload, p_senders) a;
  o_roster := array_fill(0::bigint, array[cardinality(p_id)]);
  for i in 1 .. v_posts loop
    continue when o_seq[p_row[i]] is null;
    select t.roster into v_roster
    from mesh.topic t where t.id = p_topic[i] and t.mesh_id = p_mesh[p_row[i]];
    if not found then
      raise exception 'the topic does not exist' using errcode = 'check_violation';
    end if;
    o_roster[p_row[i]] := v_roster;
    insert into mesh.topic_message (id, topic_id, sender_member_id, sender_name,
      sender_session_pubkey, nonce, ciphertext, body_version, reply_to_id, created_at,
      priority, seq)
    values (p_id[p_row[i]], p_topic[i], p_member[p_row[i]], p_name[p_row[i]],
      p_session_key[p_row[i]], p_post_nonce[i], p_post_ciphertext[i], p_version[i],
      (select r.id from mesh.topic_message r
       where r.id = p_reply_to[p_row[i]] and r.topic_id = p_topic[i]),
      p_now, p_priority[p_row[i]]::mesh.message_priority, o_seq[p_row[i]]);
  end loop;
  insert into mesh.notification (id, mesh_id, topic_id, message_id, recipient_member_id,
    sender_member_id, kind, created_at)
  select n.id, t.mesh_id, t.id, p_id[n.at], m.id, p_member[n.at], 'mention', p_now
  from (
    select unnest(p_mention_row) as at, unnest(p_mention_topic) as topic,
      unnest(p_mention_id) as id, unnest(p_mention_member) as member
  ) n
  join mesh.topic t on t.id = n.topic
  join mesh.member m on m.id = n.member
  where o_seq[n.at] is not null and m.mesh_id = t.mesh_id and m.revoked_at is null
    and (t.visibility = 'public' or exists (
      select from mesh.topic_member tm where tm.topic_id = t.id and tm.member_id = m.id))
  on conflict do nothing;
end
$$;
