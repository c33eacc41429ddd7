-- Logs the offset from which on a connection receives its topics: all, its user, some groups and itself. Claims the
-- connection where `claim` asks for that.
-- KEYS
--   connection
--   owned              connections of the node
--   tombstone
--   user_connections   connections of the user
--   user_groups        groups of the user
--   groups             groups of the connection
--   group_names        groups that have connections
-- ARGV
--   node
--   id                 connection id
--   user               or nothing
--   claim              `1` to claim
--   state              `s` and state of a resumable connection, or nothing
--   channel            channel of the node
--   topic              the connection's topic
--   entry
--   kept               most entries that are kept of it
--   group_prefix       key of a group without its name
--   presence {messages, life, tail_life, keeps_unread}   as `announce` has it
--   events {stream, most, deliver}   as `append_event` has it
--   payload            payload and
--   event_state        state of its events
--   group…             groups that it joins
-- Returns epoch, offset, version, the groups of its user and the part that the ids of its events share, or nothing where
-- the node does not own the connection.
local known = redis.call('HMGET', connection, 'node', 'version')
local owner, version = known[1], known[2]
if not owner and claim == '1' and redis.call('EXISTS', tombstone) == 0 then
  owner = node
  version = redis.call('HINCRBY', hub.log, 'version', 1)
  redis.call('HSET', connection, 'node', node, 'user', user, 'version', version)
  redis.call('SADD', owned, id)
end
if owner ~= node then
  return false
end
local of_user = {}
if user ~= '' then
  redis.call('ZADD', user_connections, 0, id)
  of_user = redis.call('ZRANGEBYSCORE', user_groups, '(' .. clock(), '+inf')
end
local member = {
  id = id, connection = connection, group_names = group_names, group_prefix = group_prefix, presence = presence
}
for index = FIRST_GROUP, LAST_GROUP do
  local group = ARGV[index]
  if redis.call('SADD', groups, group) == 1 then
    redis.call('HINCRBY', connection, 'groups', 1)
  end
  list_member(member, group)
end
local epoch, offset = append(topic, channel, entry, kept)
if state ~= '' then
  redis.call('HSET', connection, 'state', string.sub(state, 2), 'received', 0, 'epoch', epoch, 'sequence', 0, 'offset', offset)
end
local base = events and report_connected(events, node, connection, {
  id = id, base = epoch .. '-' .. string.format('%.0f', offset), payload = payload, state = event_state
})
return {epoch, offset, tonumber(version), of_user, base}
