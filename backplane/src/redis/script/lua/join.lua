-- Joins a connection to a group and logs the offset from which on it is a member.
-- KEYS
--   connection
--   groups         groups of the connection
--   group_names    groups that have connections
-- ARGV
--   owner          node, or nothing for a parked connection
--   id             connection id
--   group
--   unchanged      entry where nothing changes
--   channel        channel of the node
--   topic          the connection's topic
--   changed        entry where it changes
--   kept           most entries that are kept of it
--   group_prefix   key of a group without its name
--   presence {messages, life, tail_life, keeps_unread}   as `announce` has it
-- Returns epoch and offset, or nothing where the connection is not the node's.
if redis.call('HGET', connection, 'node') ~= owner then
  return false
end
local member = {
  id = id, connection = connection, group_names = group_names, group_prefix = group_prefix, presence = presence
}
-- A replay of the log takes each change for a real one, so a join that changes nothing has another entry.
local entry = unchanged
if redis.call('SADD', groups, group) == 1 then
  entry = changed
  redis.call('HINCRBY', connection, 'groups', 1)
end
list_member(member, group)
return {append(topic, channel, entry, kept)}
