-- Puts presences that have no lease into grace, as lost ones: a node whose
-- socket is open renews them back.
--
-- ARGV  4.. for each: presence, epoch, identity, node, record
-- Returns { count, now, due }. What is in the books already is left alone.

for i = 4, #ARGV, 5 do
  local presence, epoch, identity = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  if not load(presence) then
    -- The session is here under another id: this one is left over, and ends.
    local expires = holder(identity) and NOW or NOW + GRACE_MS
    local lease = { epoch = epoch, state = 'l', node = ARGV[i + 3], identity = identity }
    insert(presence, lease, ARGV[i + 4], expires)
  end
end
return { count(), NOW, close() }
