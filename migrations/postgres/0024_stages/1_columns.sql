-- How far a message is, what it says of itself, and who is told of its end.

-- What the sender says: the conversation, whether it waits for an answer, its own id of
-- the message whose place this one takes, at which stage it wants to be told.
alter table mesh.message_queue add column if not exists thread_id text;
alter table mesh.message_queue add column if not exists expects_reply boolean;
alter table mesh.message_queue add column if not exists supersedes text;
alter table mesh.message_queue add column if not exists receipt text;
-- How many answers led to it.
alter table mesh.message_queue add column if not exists hop integer;
-- When it is too old.
alter table mesh.message_queue add column if not exists expires_at timestamp;
-- When it was written to a socket, of one that nobody confirmed soon; when the recipient's
-- model or person was given it.
alter table mesh.message_queue add column if not exists pushed_at timestamp;
alter table mesh.message_queue add column if not exists surfaced_at timestamp;
-- Where it ended, if its recipient's client never said that it has it: `pushed`,
-- `expired`, `withdrawn`, `blocked`.
alter table mesh.message_queue add column if not exists ended text;

create index if not exists message_queue_expiring_idx on mesh.message_queue (expires_at)
where expires_at is not null and delivered_at is null;

-- Every multicast up to there was given to the presence's model or person, and when that
-- was told last.
alter table mesh.presence add column if not exists surfaced_position bigint;
alter table mesh.presence add column if not exists surfaced_at timestamp;

-- Whether the member is told of what it sent that never comes.
alter table mesh.member add column if not exists told_of_ends boolean not null default false;

-- What a scheduled message answers, and how many answers led to it.
alter table mesh.scheduled_message add column if not exists reply_to_id text;
alter table mesh.scheduled_message add column if not exists hop integer;
