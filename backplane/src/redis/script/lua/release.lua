-- Gives up a connection that was claimed and not entered.
-- KEYS: 1 connection, 2 connections of the node
-- ARGV: 1 node, 2 connection id
-- Returns whether the node owned it.
if redis.call('HGET', KEYS[1], 'node') ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], ARGV[2])
return 1
