-- Makes a node the owner of a connection that nobody owns and that was never closed.
-- KEYS: 1 log, 2 connection, 3 connections of the node, 4 tombstone
-- ARGV: 1 node, 2 connection id, 3 user or nothing
-- Returns the owner, or nothing where the connection was closed or waits for a node to take it over.
local owner = redis.call('HGET', KEYS[2], 'node')
if owner == '' or redis.call('EXISTS', KEYS[4]) == 1 then
  return false
end
if owner then
  return {owner, 0}
end
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HSET', KEYS[2], 'node', ARGV[1], 'user', ARGV[3], 'version', version)
redis.call('SADD', KEYS[3], ARGV[2])
return {ARGV[1], 1}
