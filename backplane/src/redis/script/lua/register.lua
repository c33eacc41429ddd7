-- Registers a connection again with its owner's data, after the server may have forgotten it; of its groups all or a
-- part.
-- KEYS
--   connection
--   groups         groups of the connection
--   owned          connections of the node
--   tombstone
--   group_names    groups that have connections
--   parked         parked connections
-- ARGV
--   node
--   id             connection id
--   user           or nothing
--   entered        `1` where it was entered
--   group_prefix   key of a group without its name
--   user_prefix    key of a user without its id
--   presence {messages, life, tail_life, keeps_unread}   as `announce` has it
--   version        version in which the node owns it, or nothing
--   node_prefix    key of a node's connections without the node
--   reported {base, user, payload, state}   what the node knows of its events, or nothing: the part that their ids share,
--                  user, payload, state
--   group…         its groups
-- Returns the number of groups that the connection has now; -1 where the node does not own it.
if redis.call('EXISTS', tombstone) == 1 then
  return -1
end
local known = redis.call('HMGET', connection, 'node', 'version')
local owner = known[1]
if owner and owner ~= node then
  if not is_older(known[2], version) then
    return -1
  end
  -- The server went back to a state before the node took it over.
  redis.call('SREM', node_prefix .. owner, id)
  redis.call('ZREM', parked, id)
end
-- The server may also have gone back to an earlier ownership of this node.
if owner ~= node or is_older(known[2], version) then
  local owned_in = version ~= '' and version or redis.call('HINCRBY', hub.log, 'version', 1)
  redis.call('HSET', connection, 'node', node, 'user', user, 'version', owned_in)
end
redis.call('SADD', owned, id)
if entered == '1' and user ~= '' then
  redis.call('ZADD', user_prefix .. user, 0, id)
end
if reported and redis.call('HSETNX', connection, 'event', reported.base) == 1 then
  redis.call('HSET', connection, 'event_at', '', 'payload', reported.payload, 'held', reported.state)
end
local member = {
  id = id, connection = connection, group_names = group_names, group_prefix = group_prefix, presence = presence
}
for index = FIRST_GROUP, LAST_GROUP do
  local group = ARGV[index]
  redis.call('SADD', groups, group)
  list_member(member, group)
end
return redis.call('SCARD', groups)
