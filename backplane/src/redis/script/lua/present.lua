-- Reads a page of the connections of a group, with their users.
-- KEYS: 1 connections of the group
-- ARGV: 1 the beginning, as ZRANGEBYLEX takes it, 2 most connections, 3 key of a connection without its id
-- Returns ids and users in turn; an empty text where a connection has no user.
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = id
  found[#found + 1] = redis.call('HGET', ARGV[3] .. id, 'user') or ''
end
return found
