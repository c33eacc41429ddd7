-- Appends a call's answer to its connection's topic.
-- KEYS
--   connection
--   calls         calls of the connection
-- ARGV
--   call
--   node          node that runs it
--   last          `1` for its last message
--   lane_prefix   channel of a node without the node
--   topic         the connection's topic
--   entry
--   kept          most entries that are kept of it
-- Returns the offset; nothing where the call was answered or the connection is gone; -1 where the server may have
-- deleted the calls to make room.
if redis.call('HGET', calls, call) ~= node then
  return rare().evictions() ~= '0' and redis.call('EXISTS', calls) == 0 and -1 or false
end
local owner = redis.call('HGET', connection, 'node')
if not owner then
  return false
end
if last == '1' then
  redis.call('HDEL', calls, call)
end
local _, offset = append(topic, lane_prefix .. owner, entry, kept)
return offset
