-- Joins a connection to a group and logs from where on it is a member.
-- KEYS: 1 log, 2 stream, 3 tail of the connection's topic, 4 connection, 5 groups of the connection,
--       6 connections of the group
-- ARGV: 1 node, 2 connection id, 3 group, 4 channel of the node, 5 topic, 6 entry, 7 most entries,
--       8 life of the stream, 9 life of the tail
-- Returns epoch and offset, or nothing where the node does not own the connection.
if redis.call('HGET', KEYS[4], 'node') ~= ARGV[1] then
  return false
end
redis.call('SADD', KEYS[5], ARGV[3])
redis.call('SADD', KEYS[6], ARGV[2])
return {append(KEYS[1], KEYS[2], KEYS[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9])}
