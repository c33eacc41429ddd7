-- Publishes a message to a topic, unless a request with that key has done so.
-- KEYS: 1 request
-- ARGV: 1 topic, 2 entry, 3 `1` where it is kept only if a connection could come back for it, 4 content of the request
-- Returns the offset where this call published the message, -2 where it was for a connection that does not exist, 0
-- where an earlier call has published it, -1 where the key was used for another content.
local known = redis.call('GET', KEYS[1])
if known then
  return known == ARGV[4] and 0 or -1
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', hub.life)
local offset
if string.sub(ARGV[1], 1, 2) == 'c:' then
  offset = operations.publish_direct({}, ARGV) or -2
else
  offset = operations.publish({}, ARGV)
end
return offset
