-- Publishes a message to a topic, unless a request with that key has done so. Its arguments begin as those of `publish`
-- and `publish_direct`, which it passes on.
-- KEYS
--   request
-- ARGV
--   topic
--   entry
--   only_wanted   `1` where it is kept only if a connection could come back for it
--   content       content of the request
-- Returns the offset where this call published the message, -2 where it was for a connection that does not exist, 0
-- where an earlier call has published it, -1 where the key was used for another content.
local known = redis.call('GET', request)
if known then
  return known == content and 0 or -1
end
redis.call('SET', request, content, 'PX', hub.life)
if string.sub(topic, 1, 2) == 'c:' then
  return operations.publish_direct(KEYS, ARGV, key, last_key, argument, last_argument) or -2
end
return operations.publish(KEYS, ARGV, key, last_key, argument, last_argument)
