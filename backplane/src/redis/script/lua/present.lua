-- Reads a page of the connections of a group, with their users.
-- KEYS
--   members             connections of the group
-- ARGV
--   from                the beginning, as ZRANGEBYLEX takes it
--   most                most connections
--   connection_prefix   key of a connection without its id
-- Returns ids and users in turn; an empty text where a connection has no user.
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYLEX', members, from, '+', 'LIMIT', 0, most)) do
  found[#found + 1] = id
  found[#found + 1] = redis.call('HGET', connection_prefix .. id, 'user') or ''
end
return found
