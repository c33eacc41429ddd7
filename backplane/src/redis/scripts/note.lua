-- Notes that messages of a client were taken, and that a call is run.
-- KEYS: 1 connection, 2 calls of the connection
-- ARGV: 1 node, 2 version, 3 number of messages, 4 call or nothing
-- Returns whether the node owns the connection in that version and it is resumable.
local known = redis.call('HMGET', KEYS[1], 'node', 'version', 'epoch')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or not known[3] then
  return 0
end
redis.call('HSET', KEYS[1], 'received', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[4], ARGV[1])
end
return 1
