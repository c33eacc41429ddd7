-- Makes a node the one that reports a connection's end.
-- KEYS
--   ended       end records
-- ARGV
--   id          connection id
--   found       the end record as the caller found it
--   mine        the same with the caller as the reporting node
-- Returns whether the caller is the reporting node now.
local noted = redis.call('HGET', ended, id)
if noted == mine then
  return 1
end
if noted ~= found then
  return 0
end
redis.call('HSET', ended, id, mine)
return 1
