-- Makes a node the owner of a resumable connection, and logs the offset from which on that node gets its entries.
-- KEYS: 1 log, 2 stream, 3 tail of the connection's topic, 4 connection, 5 connections of the node,
--       6 groups of the connection, 7 calls of the connection, 8 parked connections
-- ARGV: 1 node, 2 connection id, 3 version that it must have, 4 number of changes of its groups,
--       5 key of a node's connections without the node, 6 channel of a node without the node, 7 channel of the node,
--       8 topic, 9 entry, 10 most entries, 11 life of the stream, 12 life of the tail,
--       13 the owner before the caller seized it, or nothing
-- Returns epoch, offset, version, number of messages taken and checkpoint, calls; nothing where it does not exist; 0
-- where it has another version or other groups.
local known = redis.call('HMGET', KEYS[4], 'node', 'version', 'groups', 'epoch')
if not known[1] or not known[4] then
  return false
end
if known[2] ~= ARGV[3] or (known[3] or '0') ~= ARGV[4] then
  return 0
end
local former = ARGV[13]
if known[1] ~= '' and known[1] ~= ARGV[1] then
  redis.call('SREM', ARGV[5] .. known[1], ARGV[2])
  former = known[1]
end
local also = former ~= '' and ARGV[6] .. former or nil
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HSET', KEYS[4], 'node', ARGV[1], 'version', version)
redis.call('SADD', KEYS[5], ARGV[2])
redis.call('ZREM', KEYS[8], ARGV[2])
local epoch, offset =
  append(KEYS[2], KEYS[3], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12], also)
local kept = redis.call('HMGET', KEYS[4], 'received', 'epoch', 'sequence', 'offset')
return {epoch, offset, version, kept, redis.call('HGETALL', KEYS[7])}
