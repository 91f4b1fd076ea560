-- The books of one mesh: what every lease script begins with.
--
-- KEYS  1 online    zset  presence -> when it expires, socket open
--       2 grace     zset  presence -> when it ends, no socket
--       3 sessions  hash  session identity -> presence
--       4 leases    hash  presence -> [epoch, state, node, identity], packed
--       5 records   hash  presence -> record, packed
--       6 ended     zset  "l:presence" (left) or "r:presence" (revoked) -> forgotten
--       7 clock     hash  the simulation clock, see sim_clock.lua
--       8 due       zset  mesh -> when something of it expires; absent in a
--                         Redis Cluster, where it lies in another slot
-- ARGV  1 grace_ms  2 ttl_ms  3 mesh  4.. the script's own
--
-- States: "o" online; "r" released (its socket closed), "l" lost (its node
-- went silent): both are grace, and only a lost one can be renewed back.
-- All instants are milliseconds on this server's clock.

local ONLINE, GRACE, SESSIONS, LEASES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local RECORDS, ENDED, CLOCK, DUE = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local GRACE_MS, TTL_MS, MESH = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

-- How long an ended presence is remembered, and how many of one mesh are.
local TOMBSTONE_MS, TOMBSTONES_MAX = 3600000, 4096
-- How long books that nobody touches are kept.
local BOOKS_MS = 2 * (GRACE_MS + TTL_MS) + TOMBSTONE_MS

local time = redis.call('TIME')
local NOW = time[1] * 1000 + math.floor(time[2] / 1000)

local function load(presence)
  local packed = redis.call('HGET', LEASES, presence)
  if not packed then return nil end
  local fields = cmsgpack.unpack(packed)
  return { epoch = fields[1], state = fields[2], node = fields[3], identity = fields[4] }
end

local function save(presence, lease, expires)
  local fields = { lease.epoch, lease.state, lease.node, lease.identity }
  redis.call('HSET', LEASES, presence, cmsgpack.pack(fields))
  if lease.state == 'o' then
    redis.call('ZREM', GRACE, presence)
    redis.call('ZADD', ONLINE, expires, presence)
  else
    redis.call('ZREM', ONLINE, presence)
    redis.call('ZADD', GRACE, expires, presence)
  end
end

local function holder(identity)
  return redis.call('HGET', SESSIONS, identity)
end

-- A session that is here keeps its presence; one whose lease is gone does not.
local function insert(presence, lease, record, expires)
  local other = holder(lease.identity)
  if not other or redis.call('HEXISTS', LEASES, other) == 0 then
    redis.call('HSET', SESSIONS, lease.identity, presence)
  end
  save(presence, lease, expires)
  redis.call('HSET', RECORDS, presence, record)
end

-- A record with the fields that are kept beside it because they change more
-- often than it is written.
local function row(presence, lease)
  local record = redis.call('HGET', RECORDS, presence) or ''
  return { presence, record, lease.epoch, lease.state, lease.node }
end

local function remove(presence, lease)
  redis.call('ZREM', ONLINE, presence)
  redis.call('ZREM', GRACE, presence)
  redis.call('HDEL', LEASES, presence)
  redis.call('HDEL', RECORDS, presence)
  if holder(lease.identity) == presence then
    redis.call('HDEL', SESSIONS, lease.identity)
  end
end

-- The last end counts.
local function bury(presence, how)
  redis.call('ZREM', ENDED, (how == 'l' and 'r:' or 'l:') .. presence)
  redis.call('ZADD', ENDED, NOW + TOMBSTONE_MS, how .. ':' .. presence)
  redis.call('ZREMRANGEBYSCORE', ENDED, '-inf', NOW)
  redis.call('ZREMRANGEBYRANK', ENDED, 0, -TOMBSTONES_MAX - 1)
end

-- Ends a presence and returns its last row.
local function finish(presence)
  local lease = load(presence)
  if not lease then return nil end
  local last = row(presence, lease)
  remove(presence, lease)
  bury(presence, 'l')
  return last
end

local function buried(presence)
  for _, how in ipairs({ 'r', 'l' }) do
    local forgotten = redis.call('ZSCORE', ENDED, how .. ':' .. presence)
    if forgotten and tonumber(forgotten) > NOW then return how end
  end
  return nil
end

local function count()
  return redis.call('HLEN', LEASES)
end

local function first(key)
  local entry = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return entry[2] and tonumber(entry[2]) or nil
end

-- A clock stands once the mesh's last presence has ended.
local function stop_clock()
  if redis.call('HGET', CLOCK, 'paused') == '0' then
    local version = tonumber(redis.call('HGET', CLOCK, 'version')) or 0
    redis.call('HSET', CLOCK, 'paused', 1,
      'version', string.format('%.0f', math.max(NOW, version + 1)))
  end
end

-- Closes the books: keeps them for a while, notes when to look again, and
-- returns that instant (0: never).
local function close()
  if count() == 0 then stop_clock() end
  for index = 1, 7 do redis.call('PEXPIRE', KEYS[index], BOOKS_MS) end
  local online, grace = first(ONLINE), first(GRACE)
  local due = online or grace
  if online and grace then due = math.min(online, grace) end
  if DUE then
    if due then redis.call('ZADD', DUE, due, MESH) else redis.call('ZREM', DUE, MESH) end
  end
  return due or 0
end
