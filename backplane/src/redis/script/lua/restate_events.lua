-- Replaces the state that a connection's events carry.
-- KEYS: 1 connection
-- ARGV: 1 node, 2 state
-- Returns whether the node owns the connection and it has events.
local known = redis.call('HMGET', KEYS[1], 'node', 'event')
if known[1] ~= ARGV[1] or not known[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'held', ARGV[2])
return 1
