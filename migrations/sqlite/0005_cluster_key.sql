-- Who the cluster is. A single node has none: there, nobody reads it.
create table broker_cluster (
  single integer primary key check (single = 1),
  id text not null,
  secret blob,
  created_at integer not null
) strict;
