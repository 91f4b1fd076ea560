-- A topic's history in the mesh's order: the posts of one millisecond, too. What has no
-- place yet comes last; what was there before there were places, first.

create index if not exists topic_message_place_idx
  on mesh.topic_message (topic_id, coalesce(seq, 9223372036854775807), created_at, id);
drop index if exists mesh.topic_message_history_idx;
