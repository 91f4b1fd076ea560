-- Who the cluster is: one row, written by the first node that needs it.

create table if not exists mesh.broker_cluster (
  single boolean primary key default true check (single),
  -- Part of every key and channel in Redis, so that two clusters never meet there.
  id text not null,
  -- Signs what nodes tell each other. Null: the next node makes another.
  secret bytea,
  created_at timestamp not null default now()
);
