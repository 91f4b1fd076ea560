-- A mesh's leases as they stand.
--
-- Returns { now, rows, expiries }: a row and the instant it expires for each.

local rows, expiries = {}, {}
for _, presence in ipairs(redis.call('HKEYS', LEASES)) do
  local lease = load(presence)
  if lease then
    local index = lease.state == 'o' and ONLINE or GRACE
    table.insert(rows, row(presence, lease))
    table.insert(expiries, tonumber(redis.call('ZSCORE', index, presence) or NOW))
  end
end
return { NOW, rows, expiries }
