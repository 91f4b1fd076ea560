-- Lets go of a lease if this epoch holds it: to grace, or at once.
--
-- ARGV  4 presence  5 epoch  6 "grace" or "now"
-- Returns { 1 if it held it, count, now, due }. To grace twice changes nothing.

local presence, epoch, how = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local lease = load(presence)
local held = lease and lease.epoch == epoch
if held and how == 'now' then
  finish(presence)
elseif held and lease.state ~= 'r' then
  lease.state = 'r'
  save(presence, lease, NOW + GRACE_MS)
end
return { held and 1 or 0, count(), NOW, close() }
