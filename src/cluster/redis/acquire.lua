-- Enters a mesh: reattach, or take a free place, or the place of whoever would
-- end first of itself, or refuse.
--
-- ARGV  4 presence  5 identity  6 node  7 record  8 cap  9 epoch at least
-- Returns { outcome, presence, epoch, count, retry_ms, now, due, rows }:
--   "new"         rows: the records that yielded
--   "reattached"  rows: the record
--   "full"        retry_ms: until the first open lease can expire
-- Again with the same arguments: "reattached" under the same presence.

local presence, identity, node, record = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local cap, least = tonumber(ARGV[8]), tonumber(ARGV[9])

local known = holder(identity)
local lease = known and load(known)
if lease then
  lease.epoch = math.max(NOW, lease.epoch + 1, least)
  lease.state, lease.node = 'o', node
  save(known, lease, NOW + TTL_MS)
  return { 'reattached', known, lease.epoch, count(), 0, NOW, close(), { row(known, lease) } }
end

-- Leases count until they are reaped or yield, the expired ones too: so there
-- are never more than the cap, and whoever is still here needs no place.
local short = math.max(0, count() + 1 - cap)
local yielding = {}
if short > 0 then
  local silent =
    redis.call('ZRANGEBYSCORE', ONLINE, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, short)
  for i = 1, #silent, 2 do
    table.insert(yielding, { silent[i], tonumber(silent[i + 1]) + GRACE_MS })
  end
  local grace = redis.call('ZRANGE', GRACE, 0, short - 1, 'WITHSCORES')
  for i = 1, #grace, 2 do
    table.insert(yielding, { grace[i], tonumber(grace[i + 1]) })
  end
  table.sort(yielding, function(a, b)
    return a[2] < b[2] or (a[2] == b[2] and a[1] < b[1])
  end)
end
if #yielding < short then
  local live = redis.call('ZRANGEBYSCORE', ONLINE, '(' .. NOW, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local retry = live[2] and tonumber(live[2]) - NOW or TTL_MS
  return { 'full', '', 0, count(), retry, NOW, close(), {} }
end

local yielded = {}
for i = 1, short do table.insert(yielded, finish(yielding[i][1])) end
local epoch = math.max(NOW, least)
redis.call('ZREM', ENDED, 'l:' .. presence, 'r:' .. presence)
insert(presence, { epoch = epoch, state = 'o', node = node, identity = identity }, record,
  NOW + TTL_MS)
return { 'new', presence, epoch, count(), 0, NOW, close(), yielded }
