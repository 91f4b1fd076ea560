-- Counting what a mesh keeps, where only some rows of a table count: a third argument
-- says which. Tables that are counted already go on as they did.

create or replace function mesh.broker_usage_v1()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog
as $$
declare
  v_change text := '';
  v_counts text := coalesce(tg_argv[2], 'true');
begin
  if tg_op <> 'DELETE' then
    v_change := 'select r.mesh_id, 1 as rows, (' || tg_argv[1] || ')::bigint as bytes '
      'from new_rows r where ' || v_counts;
  end if;
  if tg_op = 'UPDATE' then
    v_change := v_change || ' union all ';
  end if;
  if tg_op <> 'INSERT' then
    v_change := v_change || 'select r.mesh_id, -1 as rows, -(' || tg_argv[1]
      || ')::bigint as bytes from old_rows r where ' || v_counts;
  end if;
  execute 'insert into mesh.broker_usage as u (mesh_id, kind, rows, bytes)
    select d.mesh_id, $1, sum(d.rows)::bigint, sum(d.bytes)::bigint from (' || v_change || ') d
    group by d.mesh_id having sum(d.rows) <> 0 or sum(d.bytes) <> 0 order by d.mesh_id
    on conflict (mesh_id, kind) do update
    set rows = u.rows + excluded.rows, bytes = u.bytes + excluded.bytes'
  using tg_argv[0];
  return null;
end
$$;

-- Has a table counted from now on, with the rows that are there: those that count.
create or replace function mesh.broker_count_v1(
  p_table text, p_kind text, p_bytes text, p_counts text)
returns void
language plpgsql
as $$
begin
  execute format('lock table mesh.%I in share row exclusive mode', p_table);
  execute format('drop trigger if exists broker_usage_insert on mesh.%I', p_table);
  execute format('drop trigger if exists broker_usage_update on mesh.%I', p_table);
  execute format('drop trigger if exists broker_usage_delete on mesh.%I', p_table);
  execute format('create trigger broker_usage_insert after insert on mesh.%I
    referencing new table as new_rows
    for each statement execute function mesh.broker_usage_v1(%L, %L, %L)',
    p_table, p_kind, p_bytes, p_counts);
  execute format('create trigger broker_usage_update after update on mesh.%I
    referencing new table as new_rows old table as old_rows
    for each statement execute function mesh.broker_usage_v1(%L, %L, %L)',
    p_table, p_kind, p_bytes, p_counts);
  execute format('create trigger broker_usage_delete after delete on mesh.%I
    referencing old table as old_rows
    for each statement execute function mesh.broker_usage_v1(%L, %L, %L)',
    p_table, p_kind, p_bytes, p_counts);
  delete from mesh.broker_usage where kind = p_kind;
  execute format('insert into mesh.broker_usage (mesh_id, kind, rows, bytes)
    select r.mesh_id, %L, count(*), coalesce(sum((%s)::bigint), 0) from mesh.%I r
    where %s group by r.mesh_id', p_kind, p_bytes, p_table, p_counts);
end
$$;

create or replace function mesh.broker_count_v1(p_table text, p_kind text, p_bytes text)
returns void
language sql
as $$ select mesh.broker_count_v1(p_table, p_kind, p_bytes, 'true') $$;
