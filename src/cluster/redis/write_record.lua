-- Replaces a presence's record if this epoch holds the lease.
--
-- ARGV  4 presence  5 epoch  6 record
-- Returns 1 if it did.

local lease = load(ARGV[4])
if not lease or lease.epoch ~= tonumber(ARGV[5]) then return 0 end
redis.call('HSET', RECORDS, ARGV[4], ARGV[6])
return 1
