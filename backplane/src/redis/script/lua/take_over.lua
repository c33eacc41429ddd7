-- Makes a node the owner of a resumable connection, and logs the offset from which on that node gets its entries.
-- KEYS
--   connection
--   owned         connections of the node
--   calls         calls of the connection
--   parked        parked connections
-- ARGV
--   node
--   id            connection id
--   version       version that it must have
--   changes       number of changes of its groups
--   node_prefix   key of a node's connections without the node
--   lane_prefix   channel of a node without the node
--   channel       channel of the node
--   topic         the connection's topic
--   entry
--   kept          most entries that are kept of it
--   former        the owner before the caller seized it, or nothing
-- Returns epoch, offset, version, number of messages taken and checkpoint, calls; nothing where it does not exist; 0
-- where it has another version or other groups.
local known = redis.call('HMGET', connection, 'node', 'version', 'groups', 'epoch')
if not known[1] or not known[4] then
  return false
end
if known[2] ~= version or (known[3] or '0') ~= changes then
  return 0
end
if known[1] ~= '' and known[1] ~= node then
  redis.call('SREM', node_prefix .. known[1], id)
  former = known[1]
end
local next_version = redis.call('HINCRBY', hub.log, 'version', 1)
redis.call('HSET', connection, 'node', node, 'version', next_version)
redis.call('SADD', owned, id)
redis.call('ZREM', parked, id)
local epoch, offset = append(topic, channel, entry, kept)
if former ~= '' then
  push_also(lane_prefix .. former)
end
local resumed = redis.call('HMGET', connection, 'received', 'epoch', 'sequence', 'offset')
return {epoch, offset, next_version, resumed, redis.call('HGETALL', calls)}
