-- Takes a connection that was removed out of some more of the groups that it is still listed in.
-- KEYS: 1 connection, 2 groups of the connection, 3 groups that have connections, 4 connections that are still listed
-- ARGV: 1 connection id, 2 key of a group without its name, 3 presence, as `announce` takes it, 4 most groups
-- Returns the number of groups that are left.
if redis.call('HEXISTS', KEYS[1], 'node') == 1 then
  redis.call('ZREM', KEYS[4], ARGV[1])
  return 0 -- the id belongs to a new connection by now
end
local left = unlist_some(KEYS[3], KEYS[2], ARGV[2], KEYS[1], ARGV[1], ARGV[3], ARGV[4])
if left == 0 then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
else
  redis.call('ZADD', KEYS[4], clock() + 10000, ARGV[1])
end
return left
