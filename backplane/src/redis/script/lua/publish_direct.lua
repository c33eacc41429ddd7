-- Publishes a message to one connection, on the channel of the node that owns it.
-- KEYS
-- ARGV
--   topic
--   entry
-- Returns the offset, or nothing where the connection has no owner and is not parked.
local node = redis.call('HGET', hub.base .. 'connection:' .. string.sub(topic, 3), 'node')
if not node then
  return false
end
local _, offset = append(topic, hub.base .. 'lane:' .. node, entry, hub.messages)
return offset
