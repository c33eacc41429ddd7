-- Makes a node the owner of a resumable connection before it takes it over: from here on only this node changes its
-- groups.
-- KEYS
--   connection
--   owned         connections of the node
--   parked        parked connections
-- ARGV
--   node
--   id            connection id
--   version       version that it must have
--   node_prefix   key of a node's connections without the node
-- Returns its version, and its former owner or nothing; nothing where it has another version or is not resumable.
local known = redis.call('HMGET', connection, 'node', 'version', 'epoch')
if not known[1] or not known[3] or known[2] ~= version then
  return false
end
local former = known[1] ~= node and known[1] or ''
if former ~= '' then
  redis.call('SREM', node_prefix .. former, id)
end
local next_version = redis.call('HINCRBY', hub.log, 'version', 1)
redis.call('HSET', connection, 'node', node, 'version', next_version)
redis.call('SADD', owned, id)
redis.call('ZREM', parked, id)
return {next_version, former}
