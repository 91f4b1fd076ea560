-- Two spellings of one column are in use: the installation's own migrations made
-- `capability_v2`, and its web application writes `capability_v_2`. Whoever reads
-- it takes whichever is set.
alter table mesh.invite
  add column if not exists capability_v2 text,
  add column if not exists capability_v_2 text;
