-- Logs the offset from which on a connection receives its topics: all, its user, some groups and itself. Claims the
-- connection where ARGV 4 asks for that.
-- KEYS: 1 log, 2 stream, 3 tail of the connection's topic, 4 connection, 5 connections of the node, 6 tombstone,
--       7 connections of the user, 8 groups of the user, 9 groups of the connection, 10 groups that have connections
-- ARGV: 1 node, 2 connection id, 3 user or nothing, 4 `1` to claim,
--       5 `s` and state of a resumable connection, or nothing, 6 channel of the node, 7 topic, 8 entry, 9 most entries,
--       10 life of the stream, 11 life of the tail, 12 key of a group without its name,
--       13 presence, as `announce` takes it, 14 events, as `append_event` takes them, 15 payload, 16 state of its events,
--       17… groups that it joins
-- Returns epoch, offset, version, the groups of its user and the part that the ids of its events share, or nothing where
-- the node does not own the connection.
local known = redis.call('HMGET', KEYS[4], 'node', 'version')
local owner, version = known[1], known[2]
if not owner and ARGV[4] == '1' and redis.call('EXISTS', KEYS[6]) == 0 then
  owner = ARGV[1]
  version = redis.call('HINCRBY', KEYS[1], 'version', 1)
  redis.call('HSET', KEYS[4], 'node', ARGV[1], 'user', ARGV[3], 'version', version)
  redis.call('SADD', KEYS[5], ARGV[2])
end
if owner ~= ARGV[1] then
  return false
end
local groups = {}
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[7], 0, ARGV[2])
  groups = redis.call('ZRANGEBYSCORE', KEYS[8], '(' .. clock(), '+inf')
end
for index = 17, #ARGV do
  if redis.call('SADD', KEYS[9], ARGV[index]) == 1 then
    redis.call('HINCRBY', KEYS[4], 'groups', 1)
  end
  list_member(KEYS[10], ARGV[12] .. ARGV[index], ARGV[index], KEYS[4], ARGV[2], ARGV[13])
end
local epoch, offset =
  append(KEYS[2], KEYS[3], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[4], 'state', string.sub(ARGV[5], 2), 'received', 0, 'epoch', epoch, 'sequence', 0, 'offset', offset)
end
local events = report_connected(ARGV[14], ARGV[1], KEYS[4], ARGV[2], epoch, offset, ARGV[15], ARGV[16])
return {epoch, offset, tonumber(version), groups, events}
