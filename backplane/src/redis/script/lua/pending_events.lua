-- Counts the unfinished events.
-- KEYS: 1 stream of events
-- Returns their number, the age of the oldest one in milliseconds, and the nodes that have some.
local pending = redis.pcall('XPENDING', KEYS[1], DELIVERY)
if pending.err or pending[1] == 0 then
  return {0, 0, {}}
end
local nodes = {}
for index, consumer in ipairs(pending[4]) do
  nodes[index] = consumer[1]
end
return {pending[1], math.max(0, clock() - string.match(pending[2], '^%d+')), nodes}
