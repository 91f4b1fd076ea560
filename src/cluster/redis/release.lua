-- Lets go of a lease if this epoch holds it: to grace, or at once.
--
-- ARGV  4 presence  5 epoch  6 "grace" or "now"
-- Returns { answer, count, now, due }; the answer is 1 if it held the lease, 0 if
-- somebody else has it or it has ended, -1 if the books have never heard of it.
-- To grace twice changes nothing.

local presence, epoch, how = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local lease = load(presence)
local held = lease and lease.epoch == epoch
if held and how == 'now' then
  finish(presence)
elseif held and lease.state ~= 'r' then
  lease.state = 'r'
  save(presence, lease, NOW + GRACE_MS)
end
local answer = held and 1 or 0
if not lease and not buried(presence) then answer = -1 end
return { answer, count(), NOW, close() }
