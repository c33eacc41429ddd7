-- Counts a hub's connections and groups.
-- KEYS
--   parked        parked connections
--   group_names   groups that have connections
--   owned…        connections of nodes
-- ARGV
-- Returns the number of members of each key.
local counts = {redis.call('ZCARD', parked), redis.call('SCARD', group_names)}
for index = FIRST_OWNED, LAST_OWNED do
  counts[index] = redis.call('SCARD', KEYS[index])
end
return counts
