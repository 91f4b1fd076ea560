-- Ends a presence whoever holds it, and keeps its holder from restoring it.
--
-- ARGV  4 presence
-- Returns { count, now, due }.

local presence = ARGV[4]
local lease = load(presence)
if lease then remove(presence, lease) end
bury(presence, 'r')
return { count(), NOW, close() }
