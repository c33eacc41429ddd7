-- Joins a connection to a group and logs the offset from which on it is a member.
-- KEYS: 1 log, 2 stream, 3 tail of the connection's topic, 4 connection, 5 groups of the connection,
--       6 connections of the group, 7 groups that have connections
-- ARGV: 1 node, or nothing for a parked connection, 2 connection id, 3 group, 4 entry where nothing changes,
--       5 channel of the node, 6 topic, 7 entry, 8 most entries, 9 life of the stream, 10 life of the tail,
--       11 presence, as `announce` takes it
-- Returns epoch and offset, or nothing where the connection is not the node's.
if redis.call('HGET', KEYS[4], 'node') ~= ARGV[1] then
  return false
end
-- A replay of the log takes each change for a real one, so a join that changes nothing has another entry.
local entry = ARGV[4]
if redis.call('SADD', KEYS[5], ARGV[3]) == 1 then
  entry = ARGV[7]
  redis.call('HINCRBY', KEYS[4], 'groups', 1)
end
list_member(KEYS[7], KEYS[6], ARGV[3], KEYS[4], ARGV[2], ARGV[11])
return {append(KEYS[2], KEYS[3], ARGV[5], ARGV[6], entry, ARGV[8], ARGV[9], ARGV[10])}
