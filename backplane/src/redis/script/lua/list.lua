-- Lists a connection that has entered in some of the groups that it entered with.
-- KEYS
--   connection
--   groups         groups of the connection
--   group_names    groups that have connections
-- ARGV
--   node
--   id             connection id
--   group_prefix   key of a group without its name
--   presence {messages, life, tail_life, keeps_unread}   as `announce` has it
--   group…
-- Returns whether the node owns the connection.
if redis.call('HGET', connection, 'node') ~= node then
  return 0
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
return 1
