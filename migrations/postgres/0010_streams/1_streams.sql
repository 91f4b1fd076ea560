-- Streams: what a session called itself, where that is another name than its member's;
-- and how many there are.

alter table mesh.stream add column if not exists created_by_session_name text;

select mesh.broker_count_v1('stream', 'stream', 'octet_length(r.name)');
