-- Makes a node the owner of a resumable connection before it takes it over: from here on only this node changes its
-- groups.
-- KEYS: 1 log, 2 connection, 3 connections of the node, 4 parked connections
-- ARGV: 1 node, 2 connection id, 3 version that it must have, 4 key of a node's connections without the node
-- Returns its version, and its former owner or nothing; nothing where it has another version or is not resumable.
local known = redis.call('HMGET', KEYS[2], 'node', 'version', 'epoch')
if not known[1] or not known[3] or known[2] ~= ARGV[3] then
  return false
end
local former = known[1] ~= ARGV[1] and known[1] or ''
if former ~= '' then
  redis.call('SREM', ARGV[4] .. former, ARGV[2])
end
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HSET', KEYS[2], 'node', ARGV[1], 'version', version)
redis.call('SADD', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[2])
return {version, former}
