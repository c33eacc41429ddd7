-- Logs from where on a connection receives what is for all, for its user and for itself; claims it where asked to.
-- KEYS: 1 log, 2 stream, 3 tail of the connection's topic, 4 connection, 5 connections of the node, 6 tombstone,
--       7 connections of the user
-- ARGV: 1 node, 2 connection id, 3 user or nothing, 4 `1` to claim, 5 channel of the node, 6 topic, 7 entry,
--       8 most entries, 9 life of the stream, 10 life of the tail
-- Returns epoch and offset, or nothing where the node does not own the connection.
local owner = redis.call('HGET', KEYS[4], 'node')
if not owner and ARGV[4] == '1' and redis.call('EXISTS', KEYS[6]) == 0 then
  owner = ARGV[1]
  local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
  redis.call('HSET', KEYS[4], 'node', ARGV[1], 'user', ARGV[3], 'version', version)
  redis.call('SADD', KEYS[5], ARGV[2])
end
if owner ~= ARGV[1] then
  return false
end
if ARGV[3] ~= '' then
  redis.call('SADD', KEYS[7], ARGV[2])
end
return {append(KEYS[1], KEYS[2], KEYS[3], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10])}
