-- Publishes a message to one connection, on the channel of the node that owns it.
-- KEYS: 1 log, 2 stream, 3 tail of the topic, 4 connection
-- ARGV: 1 channel without the node, 2 topic, 3 entry, 4 most entries, 5 life of the stream, 6 life of the tail
-- Returns the offset, or nothing where the connection has no owner and is not parked.
local node = redis.call('HGET', KEYS[4], 'node')
if not node then
  return false
end
local _, offset = append(KEYS[2], KEYS[3], ARGV[1] .. node, ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return offset
