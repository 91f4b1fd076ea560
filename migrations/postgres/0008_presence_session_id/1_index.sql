-- Status hooks name their session.
create index if not exists presence_open_session_id_idx on mesh.presence using hash (session_id)
  where disconnected_at is null;
