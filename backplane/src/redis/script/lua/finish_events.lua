-- Records that events of a node are finished.
-- KEYS
--   stream      stream of events
-- ARGV
--   node
--   place…      places of the events
-- Returns how many of them were the node's.
local finished = 0
for index = FIRST_PLACE, LAST_PLACE do
  local place = ARGV[index]
  local pending = redis.pcall('XPENDING', stream, DELIVERY, place, place, 1, node)
  if not pending.err and #pending > 0 then
    finished = finished + redis.call('XACK', stream, DELIVERY, place)
  end
end
return finished
