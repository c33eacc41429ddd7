-- Finishes a call that is not answered.
-- KEYS
--   calls       calls of the connection
-- ARGV
--   call
--   node        node that runs it
-- Returns whether this call of the script finished it.
if redis.call('HGET', calls, call) ~= node then
  return 0
end
return redis.call('HDEL', calls, call)
