-- Registers a connection again with its owner's data, after the server may have forgotten it; of its groups all or a
-- part.
-- KEYS: 1 log, 2 connection, 3 groups of the connection, 4 connections of the node, 5 tombstone,
--       6 groups that have connections, 7 parked connections
-- ARGV: 1 node, 2 connection id, 3 user or nothing, 4 `1` where it was entered, 5 key of a group without its name,
--       6 key of a user without its id, 7 presence, as `announce` takes it,
--       8 version in which the node owns it, or nothing, 9 key of a node's connections without the node,
--       10 the part that the ids of its events share, or nothing, 11 payload, 12 state of its events, 13… groups
-- Returns the number of groups that the connection has now; -1 where the node does not own it.
if redis.call('EXISTS', KEYS[5]) == 1 then
  return -1
end
local known = redis.call('HMGET', KEYS[2], 'node', 'version')
local owner = known[1]
if owner and owner ~= ARGV[1] then
  if not is_older(known[2], ARGV[8]) then
    return -1
  end
  -- The server went back to a state before the node took it over.
  redis.call('SREM', ARGV[9] .. owner, ARGV[2])
  redis.call('ZREM', KEYS[7], ARGV[2])
end
-- The server may also have gone back to an earlier ownership of this node.
if owner ~= ARGV[1] or is_older(known[2], ARGV[8]) then
  local version = ARGV[8] ~= '' and ARGV[8] or redis.call('HINCRBY', KEYS[1], 'version', 1)
  redis.call('HSET', KEYS[2], 'node', ARGV[1], 'user', ARGV[3], 'version', version)
end
redis.call('SADD', KEYS[4], ARGV[2])
if ARGV[4] == '1' and ARGV[3] ~= '' then
  redis.call('ZADD', ARGV[6] .. ARGV[3], 0, ARGV[2])
end
if ARGV[10] ~= '' and redis.call('HSETNX', KEYS[2], 'event', ARGV[10]) == 1 then
  redis.call('HSET', KEYS[2], 'event_at', '', 'payload', ARGV[11], 'held', ARGV[12])
end
for index = 13, #ARGV do
  redis.call('SADD', KEYS[3], ARGV[index])
  list_member(KEYS[6], ARGV[5] .. ARGV[index], ARGV[index], KEYS[2], ARGV[2], ARGV[7])
end
return redis.call('SCARD', KEYS[3])
