-- Replaces the state that a connection's events carry.
-- KEYS
--   connection
-- ARGV
--   node
--   state
-- Returns whether the node owns the connection and it has events.
local known = redis.call('HMGET', connection, 'node', 'event')
if known[1] ~= node or not known[2] then
  return 0
end
redis.call('HSET', connection, 'held', state)
return 1
