-- Publishes a message to one connection, on the channel of the node that owns it.
-- ARGV: 1 topic, 2 entry
-- Returns the offset, or nothing where the connection has no owner and is not parked.
local topic = ARGV[1]
local node = redis.call('HGET', hub.base .. 'connection:' .. string.sub(topic, 3), 'node')
if not node then
  return false
end
local _, offset = append(hub.base .. 'stream:' .. topic, hub.base .. 'tail:' .. topic, hub.base .. 'lane:' .. node, topic,
  ARGV[2], hub.messages, hub.life, hub.tail_life)
return offset
