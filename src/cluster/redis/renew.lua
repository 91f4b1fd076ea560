-- Renews one node's leases of one mesh, and restores those that are not in the
-- books if their record is given.
--
-- ARGV  4 node, then for each lease: presence, epoch, identity, record
--       (identity and record empty: only say that it is missing)
-- Returns { count, now, due, missing, replaced, ended }: lists of positions,
-- counted from 0.

local node = ARGV[4]
local missing, replaced, ended = {}, {}, {}

local function restore(presence, epoch, identity, record)
  local other = holder(identity)
  local lease = other and load(other)
  if lease and lease.epoch > epoch then return replaced end
  if lease then
    -- Both sides of a split took the session in: the newer one keeps it.
    redis.call('HDEL', SESSIONS, identity)
    lease.epoch, lease.state = epoch + 1, 'r'
    save(other, lease, NOW)
  end
  insert(presence, { epoch = epoch, state = 'o', node = node, identity = identity }, record,
    NOW + TTL_MS)
  return nil
end

local function renew(presence, epoch, identity, record)
  local lease = load(presence)
  if lease then
    if lease.epoch > epoch or holder(lease.identity) ~= presence then return replaced end
    -- A release overtook this renewal.
    if lease.state == 'r' and lease.epoch == epoch then return nil end
    lease.epoch, lease.state, lease.node = epoch, 'o', node
    save(presence, lease, NOW + TTL_MS)
    return nil
  end
  local how = buried(presence)
  if how == 'r' then return replaced end
  if how == 'l' then return ended end
  if record == '' then return missing end
  return restore(presence, epoch, identity, record)
end

for i = 5, #ARGV, 4 do
  local list = renew(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3])
  if list then table.insert(list, (i - 5) / 4) end
end
return { count(), NOW, close(), missing, replaced, ended }
