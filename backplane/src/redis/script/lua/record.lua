-- Records that messages of a client were taken, and that a node runs a call.
-- KEYS: 1 connection, 2 calls of the connection, 3 request, where the client may repeat the call
-- ARGV: 1 node, 2 version, 3 number of messages or nothing, 4 call or nothing, 5 life of the request (milliseconds)
-- Returns 1; 0 where the node does not own the connection in that version or it is not resumable; for a request that
-- was recorded before: 2, or 3 where its call still runs.
local known = redis.call('HMGET', KEYS[1], 'node', 'version', 'epoch')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or not known[3] then
  return 0
end
if KEYS[3] and not redis.call('SET', KEYS[3], '', 'NX', 'PX', ARGV[5]) then
  return 2 + redis.call('HEXISTS', KEYS[2], ARGV[4])
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'received', ARGV[3])
end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[4], ARGV[1])
end
return 1
