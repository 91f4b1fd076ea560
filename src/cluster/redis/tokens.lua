-- Takes tokens from a bucket. A token is 60000 parts, so that one per minute is
-- one part per millisecond and nothing is rounded away.
--
-- KEYS  1 bucket  hash  parts, at
-- ARGV  1 wanted  2 per minute  3 burst
-- Returns how many it got. A bucket that is full again is dropped.

local PARTS = 60000
local want, per_minute = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = tonumber(ARGV[3]) * PARTS

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local bucket = redis.call('HMGET', KEYS[1], 'parts', 'at')
local parts = full
if bucket[1] then
  local passed = math.max(0, now - tonumber(bucket[2]))
  parts = math.min(full, tonumber(bucket[1]) + passed * per_minute)
end
local got = math.min(want, math.floor(parts / PARTS))
parts = parts - got * PARTS
redis.call('HSET', KEYS[1], 'parts', string.format('%.0f', parts), 'at', now)
local refill = 86400000
if per_minute > 0 then refill = math.min(refill, math.ceil((full - parts) / per_minute) + 1) end
redis.call('PEXPIRE', KEYS[1], refill)
return got
