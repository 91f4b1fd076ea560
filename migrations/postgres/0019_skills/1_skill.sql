-- Skills that a mesh shares.

alter table mesh.skill add column if not exists author_session_name text;

select mesh.broker_count_v1('skill', 'skill', 'octet_length(r.name) + octet_length(r.description)
  + octet_length(r.instructions) + coalesce(octet_length(r.manifest::text), 0)
  + coalesce(octet_length(array_to_string(r.tags, '''')), 0)');
