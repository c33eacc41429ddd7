-- Records that messages of a client were taken, and that a node runs a call.
-- KEYS
--   connection
--   calls          calls of the connection
--   request        where the client may repeat the call
-- ARGV
--   node
--   version
--   received       number of messages or nothing
--   call           or nothing
--   request_life   life of the request (milliseconds)
-- Returns 1; 0 where the node does not own the connection in that version or it is not resumable; for a request that
-- was recorded before: 2, or 3 where its call still runs.
local known = redis.call('HMGET', connection, 'node', 'version', 'epoch')
if known[1] ~= node or known[2] ~= version or not known[3] then
  return 0
end
if request and not redis.call('SET', request, '', 'NX', 'PX', request_life) then
  return 2 + redis.call('HEXISTS', calls, call)
end
if received ~= '' then
  redis.call('HSET', connection, 'received', received)
end
if call ~= '' then
  redis.call('HSET', calls, call, node)
end
return 1
