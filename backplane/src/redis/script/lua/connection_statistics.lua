-- Counts a hub's connections and groups.
-- KEYS: 1 parked connections, 2 groups that have connections, 3… connections of nodes
-- Returns the number of members of each key.
local counts = {redis.call('ZCARD', KEYS[1])}
for index = 2, #KEYS do
  counts[index] = redis.call('SCARD', KEYS[index])
end
return counts
