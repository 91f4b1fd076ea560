-- Status hooks name their session.
create index presence_open_session_id_idx on presence (session_id)
    where disconnected_at is null;
