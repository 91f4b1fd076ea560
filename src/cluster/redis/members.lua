-- Says that a node is here, for a while, and who else is.
--
-- KEYS  1 nodes  zset  node and incarnation -> when it counts as gone
-- ARGV  1 this one  2 for how many milliseconds
-- Returns everyone who is here.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- First of all what takes memory: after another write a script is not refused for
-- want of it, and a node must learn by this one that Redis takes no writes.
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
