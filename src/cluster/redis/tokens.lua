-- Takes tokens from buckets of one owner. A token is 60000 parts, so that one per
-- minute is one part per millisecond and nothing is rounded away.
--
-- KEYS  each bucket  hash  parts, at
-- ARGV  for each bucket: wanted, per minute, burst
-- Returns for each bucket: how many it gave, whole tokens left, milliseconds until there
-- is one more, until it is full; -1 for never. A bucket that is full again is dropped.

local PARTS = 60000
local DAY = 86400000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local answer = {}
for i, key in ipairs(KEYS) do
  local want, per_minute = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
  local full = tonumber(ARGV[3 * i]) * PARTS
  local function after(missing)
    if missing <= 0 then return 0 end
    if per_minute <= 0 then return -1 end
    return math.ceil(missing / per_minute)
  end

  local bucket = redis.call('HMGET', key, 'parts', 'at')
  local parts = full
  if bucket[1] then
    local passed = math.max(0, now - tonumber(bucket[2]))
    parts = math.min(full, tonumber(bucket[1]) + passed * per_minute)
  end
  local got = math.min(want, math.floor(parts / PARTS))
  parts = parts - got * PARTS
  local full_in = after(full - parts)
  if got > 0 then
    redis.call('HSET', key, 'parts', string.format('%.0f', parts), 'at', now)
    redis.call('PEXPIRE', key, full_in < 0 and DAY or math.min(DAY, full_in + 1))
  end
  answer[#answer + 1] = got
  answer[#answer + 1] = math.floor(parts / PARTS)
  answer[#answer + 1] = after(math.min(PARTS - parts % PARTS, full - parts))
  answer[#answer + 1] = full_in
end
return answer
