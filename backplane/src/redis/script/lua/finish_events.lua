-- Records that events of a node are finished.
-- KEYS: 1 stream of events
-- ARGV: 1 node, 2… places
-- Returns how many of them were the node's.
local finished = 0
for index = 2, #ARGV do
  local pending = redis.pcall('XPENDING', KEYS[1], DELIVERY, ARGV[index], ARGV[index], 1, ARGV[1])
  if not pending.err and #pending > 0 then
    finished = finished + redis.call('XACK', KEYS[1], DELIVERY, ARGV[index])
  end
end
return finished
