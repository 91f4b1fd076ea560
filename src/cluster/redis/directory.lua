-- A mesh's presences.
--
-- Returns { count, rows }.

local rows = {}
for _, presence in ipairs(redis.call('HKEYS', LEASES)) do
  local lease = load(presence)
  if lease then table.insert(rows, row(presence, lease)) end
end
return { count(), rows }
