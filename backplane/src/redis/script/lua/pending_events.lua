-- Counts the unfinished events.
-- KEYS
--   stream      stream of events
-- ARGV
-- Returns their number, the age of the oldest one in milliseconds, and the nodes that ever had some, with the numbers of
-- theirs.
local pending = redis.pcall('XPENDING', stream, DELIVERY)
if pending.err then
  return {0, 0, {}}
end
local nodes = {}
for index, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, DELIVERY)) do
  local node = {}
  for field = 1, #consumer, 2 do
    node[consumer[field]] = consumer[field + 1]
  end
  nodes[index] = {node.name, node.pending}
end
local age = pending[1] > 0 and math.max(0, clock() - string.match(pending[2], '^%d+')) or 0
return {pending[1], age, nodes}
