-- What waits of one sender, in one mesh, and in all, without looking at what waits
-- elsewhere. What a web application posts to topics ('#' and the topic's id) waits
-- for nobody.
create index if not exists message_queue_waiting_idx
  on mesh.message_queue (mesh_id, sender_member_id)
  where delivered_at is null and left(target_spec, 1) <> '#';
