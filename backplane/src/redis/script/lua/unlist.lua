-- Takes a connection that was removed out of some more of the groups that it is still listed in.
-- KEYS
--   connection
--   groups         groups of the connection
--   group_names    groups that have connections
--   leaving        connections that are still listed
-- ARGV
--   id             connection id
--   group_prefix   key of a group without its name
--   presence {messages, life, tail_life, keeps_unread}   as `announce` has it
--   most           most groups
-- Returns the number of groups that are left.
if redis.call('HEXISTS', connection, 'node') == 1 then
  redis.call('ZREM', leaving, id)
  return 0 -- the id belongs to a new connection by now
end
local member = {
  id = id, connection = connection, group_names = group_names, group_prefix = group_prefix, presence = presence
}
local left = unlist_some(member, groups, most)
if left == 0 then
  redis.call('DEL', connection)
  redis.call('ZREM', leaving, id)
else
  redis.call('ZADD', leaving, clock() + 10000, id)
end
return left
