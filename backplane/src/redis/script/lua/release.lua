-- Gives up a connection that was claimed and not entered.
-- KEYS
--   connection
--   owned       connections of the node
-- ARGV
--   node
--   id          connection id
-- Returns whether the node owned it.
if redis.call('HGET', connection, 'node') ~= node then
  return 0
end
redis.call('DEL', connection)
redis.call('SREM', owned, id)
return 1
