-- Finishes a call that is not answered.
-- KEYS: 1 calls of the connection
-- ARGV: 1 call, 2 node that runs it
-- Returns whether this call of the script finished it.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
