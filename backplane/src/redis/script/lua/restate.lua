-- Replaces the state of a resumable connection.
-- KEYS: 1 connection
-- ARGV: 1 node, or nothing for a parked connection, 2 version, 3 state, 4 for a parked connection: the state before
-- Returns whether the node owns the connection in that version, or it is parked with that version and state.
local known = redis.call('HMGET', KEYS[1], 'node', 'version', 'state')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or not known[3] then
  return 0
end
if ARGV[4] and known[3] ~= ARGV[4] and known[3] ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], 'state', ARGV[3])
return 1
