-- Replaces the state of a resumable connection.
-- KEYS: 1 connection
-- ARGV: 1 node, 2 version, 3 state
-- Returns whether the node owns the connection in that version.
local known = redis.call('HMGET', KEYS[1], 'node', 'version', 'state')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or not known[3] then
  return 0
end
redis.call('HSET', KEYS[1], 'state', ARGV[3])
return 1
