-- Puts presences that have no lease into grace, as lost ones: a node whose
-- socket is open renews them back.
--
-- ARGV  4 "1" to leave out those that have ended
--       5.. for each: presence, epoch, identity, node, record
-- Returns { count, now, due }. What is in the books already is left alone.

local leave_out_ended = ARGV[4] == '1'
for i = 5, #ARGV, 5 do
  local presence, epoch, identity = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  if not load(presence) and not (leave_out_ended and buried(presence)) then
    -- The session is here under another id: this one is left over, and ends.
    local expires = holder(identity) and NOW or NOW + GRACE_MS
    local lease = { epoch = epoch, state = 'l', node = ARGV[i + 3], identity = identity }
    insert(presence, lease, ARGV[i + 4], expires)
  end
end
return { count(), NOW, close() }
