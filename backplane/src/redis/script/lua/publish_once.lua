-- Publishes a message to a topic, unless a request with that key has done so.
-- KEYS: 1 log, 2 stream, 3 tail of the topic, 4 request, 5 connection, where the topic is one
-- ARGV: 1 channel, without the node where the topic is a connection, 2 topic, 3 entry, 4 most entries,
--       5 life of the stream, 6 life of the tail, 7 content of the request, 8 its life (milliseconds),
--       9 key of the topic's members, as `append` takes it
-- Returns the offset where this call published the message, -2 where it was for a connection that does not exist, 0
-- where an earlier call has published it, -1 where the key was used for another content.
local known = redis.call('GET', KEYS[4])
if known then
  return known == ARGV[7] and 0 or -1
end
redis.call('SET', KEYS[4], ARGV[7], 'PX', ARGV[8])
local channel = ARGV[1]
if KEYS[5] then
  local node = redis.call('HGET', KEYS[5], 'node')
  if not node then
    return -2
  end
  channel = channel .. node
end
local _, offset =
  append(KEYS[2], KEYS[3], channel, ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], nil, ARGV[9])
return offset
