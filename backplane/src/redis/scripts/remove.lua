-- Removes a connection from the directory and from every set, and leaves a tombstone.
-- KEYS: 1 connection, 2 groups of the connection, 3 connections of the node, 4 tombstone, 5 stream, 6 tail of the
--       connection's topic
-- ARGV: 1 node that must own it, 2 connection id, 3 life of the tombstone (milliseconds), 4 name of this removal,
--       5 key of a group without its name, 6 key of a user without its id
-- Returns 1 and the user where this call, or an earlier one of the same name, removed the connection; else 0.
-- An owner may remove what the server forgot in a restart: only a tombstone says that somebody was faster.
local found = redis.call('HMGET', KEYS[1], 'node', 'user')
local closed = redis.call('GET', KEYS[4])
if closed and closed == ARGV[4] then
  return {1, found[2] or ''}
end
if closed or (found[1] and found[1] ~= ARGV[1]) then
  redis.call('SREM', KEYS[3], ARGV[2])
  return {0, ''}
end
for _, group in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  redis.call('SREM', ARGV[5] .. group, ARGV[2])
end
if found[2] and found[2] ~= '' then
  redis.call('SREM', ARGV[6] .. found[2], ARGV[2])
end
redis.call('SREM', KEYS[3], ARGV[2])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[5], KEYS[6])
if tonumber(ARGV[3]) > 0 then
  redis.call('SET', KEYS[4], ARGV[4], 'PX', ARGV[3])
end
return {1, found[2] or ''}
