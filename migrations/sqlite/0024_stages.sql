-- How far a message is, what it says of itself, and who is told of its end.

-- What the sender says: the conversation, whether it waits for an answer, its own id of
-- the message whose place this one takes, at which stage it wants to be told.
alter table message_queue add column thread_id text;
alter table message_queue add column expects_reply integer;
alter table message_queue add column supersedes text;
alter table message_queue add column receipt text;
-- How many answers led to it.
alter table message_queue add column hop integer;
-- When it is too old.
alter table message_queue add column expires_at integer;
-- When it was written to a socket, of one that nobody confirmed soon; when the recipient's
-- model or person was given it.
alter table message_queue add column pushed_at integer;
alter table message_queue add column surfaced_at integer;
-- Where it ended, if its recipient's client never said that it has it: `pushed`,
-- `expired`, `withdrawn`, `blocked`.
alter table message_queue add column ended text;

create index message_queue_expiring_idx on message_queue (expires_at)
    where expires_at is not null and delivered_at is null;

-- Every multicast up to there was given to the presence's model or person, and when that
-- was told last.
alter table presence add column surfaced_position integer not null default 0;
alter table presence add column surfaced_at integer;

-- Whether the member is told of what it sent that never comes.
alter table member add column told_of_ends integer not null default 0;

-- What a scheduled message answers, and how many answers led to it.
alter table scheduled_message add column reply_to_id text;
alter table scheduled_message add column hop integer;
