-- Makes a node the one that reports a connection's end.
-- KEYS: 1 end records
-- ARGV: 1 connection id, 2 the end record as the caller found it, 3 the same with the caller as the reporting node
-- Returns whether the caller is the reporting node now.
local noted = redis.call('HGET', KEYS[1], ARGV[1])
if noted == ARGV[3] then
  return 1
end
if noted ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
