-- Appends a call's answer to its connection's topic.
-- KEYS: 1 log, 2 stream, 3 tail of the connection's topic, 4 connection, 5 calls of the connection
-- ARGV: 1 call, 2 node that runs it, 3 `1` for its last message, 4 channel without the node, 5 topic, 6 entry,
--       7 most entries, 8 life of the stream, 9 life of the tail
-- Returns the offset; nothing where the call was answered or the connection is gone; -1 where the server may have
-- deleted the calls to make room.
if redis.call('HGET', KEYS[5], ARGV[1]) ~= ARGV[2] then
  return rare().evictions() ~= '0' and redis.call('EXISTS', KEYS[5]) == 0 and -1 or false
end
local node = redis.call('HGET', KEYS[4], 'node')
if not node then
  return false
end
if ARGV[3] == '1' then
  redis.call('HDEL', KEYS[5], ARGV[1])
end
local _, offset =
  append(KEYS[2], KEYS[3], ARGV[4] .. node, ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9])
return offset
