-- Takes expired presences out, each handed to one caller. A lease that was open
-- belongs to a node that died: it gets its grace first.
--
-- ARGV  4 how many at most
-- Returns { count, now, due, rows }.

local limit = tonumber(ARGV[4])
for _, presence in ipairs(redis.call('ZRANGEBYSCORE', ONLINE, '-inf', NOW)) do
  local lease = load(presence)
  if lease then
    lease.state = 'l'
    save(presence, lease, NOW + GRACE_MS)
  else
    redis.call('ZREM', ONLINE, presence)
  end
end
local rows = {}
for _, presence in ipairs(redis.call('ZRANGEBYSCORE', GRACE, '-inf', NOW, 'LIMIT', 0, limit)) do
  local last = finish(presence)
  if last then table.insert(rows, last) else redis.call('ZREM', GRACE, presence) end
end
return { count(), NOW, close(), rows }
