-- The functions that append to a chain, with a second hash of the second kind: it covers
-- the row's number, too, and its first byte, 2, says which kind it is.
--
-- Here functions that have landed get another body, which is otherwise not done. Nodes of
-- the release before call them while this one is deployed, and in a chain that has a row of
-- the second kind none of the first may follow: so they write rows of the second kind from
-- the same instant on, without knowing of it. Whoever calls `broker_accept_v2`, or another
-- function over `broker_append_v2`, does as well. What had begun when this commits may still
-- append a row of the first kind; verifiers allow for that for a minute.

-- Appends rows to the chains whose locks it takes, and returns their ids in the order given.
-- Rows of one mesh stand together; those with `p_skip` are left out. `p_payload` is canonical
-- JSON, `p_time` is `p_now` as hashed.
--
-- The second hash is a 2, then SHA-256 of the previous row's second hash (where it has none:
-- of its first, as text; `genesis` before the first row), then `|2|`, this row's number, `|`,
-- its first hash, as text, and, where there is a name, `|` and the name.
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
    v_name_head := '\x02'::bytea || sha256(v_name_head || convert_to(
      '|2|' || v_id[i] || '|' || v_head || coalesce('|' || p_name[i], ''), 'UTF8'));
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

-- As `broker_append_v2`, for nodes that know no second hash.
create or replace function mesh.broker_append_v1(
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
begin
  return mesh.broker_append_v2(p_now, p_time, p_locks, p_mesh, p_actor, p_name, p_event,
    p_payload, p_skip);
end
$$;
