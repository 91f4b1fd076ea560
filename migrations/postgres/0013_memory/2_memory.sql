-- What a mesh remembers: the search has the tags, too, and finds a mesh's own rows by
-- one word of each. The column is filled as rows are written, by whoever writes them; a
-- generated one would have the whole table written anew.

alter table mesh.memory add column if not exists remembered_by_session_name text;
alter table mesh.memory add column if not exists words tsvector;

create or replace function mesh.broker_memory_words_v1()
returns trigger
language plpgsql
set search_path = pg_catalog
as $$
begin
  new.words := to_tsvector('english', new.content)
    || to_tsvector('english', coalesce(array_to_string(new.tags, ' '), ''))
    || array_to_tsvector(array['mesh ' || new.mesh_id]);
  return new;
end
$$;

drop trigger if exists broker_memory_words on mesh.memory;
create trigger broker_memory_words before insert or update of mesh_id, content, tags
  on mesh.memory for each row execute function mesh.broker_memory_words_v1();

update mesh.memory set content = content where words is null;

create index if not exists memory_words_idx on mesh.memory using gin (words)
  where forgotten_at is null;

-- What a mesh remembers by these words. A planner that knows neither how long the rows
-- are nor what ranking them costs would read the whole table.
create or replace function mesh.broker_recall_v1(
  p_mesh text, p_query text, p_skip bigint, p_limit bigint)
returns table (id text, content text, tags text, remembered_by_name text,
  remembered_by_session_name text, remembered_at timestamp)
language plpgsql
stable
set search_path = pg_catalog
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_query tsquery := plainto_tsquery('english', p_query);
begin
  -- Words that say nothing find nothing.
  if numnode(v_query) = 0 then
    return;
  end if;
  return query
    select m.id, m.content, to_json(m.tags)::text, m.remembered_by_name,
      m.remembered_by_session_name, m.remembered_at
    from mesh.memory m
    where m.words @@ (v_query && quote_literal('mesh ' || p_mesh)::tsquery)
      and m.forgotten_at is null
    order by ts_rank(m.words, v_query) desc, m.remembered_at desc, m.id desc
    offset p_skip limit p_limit;
end
$$;

select mesh.broker_count_v1('memory', 'memory',
  'octet_length(r.content) + coalesce(octet_length(array_to_string(r.tags, '''')), 0)',
  'r.forgotten_at is null');
