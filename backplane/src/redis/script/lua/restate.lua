-- Replaces the state of a resumable connection.
-- KEYS
--   connection
-- ARGV
--   owner       node, or nothing for a parked connection
--   version
--   state
--   former      for a parked connection: the state before
-- Returns whether the node owns the connection in that version, or it is parked with that version and state.
local known = redis.call('HMGET', connection, 'node', 'version', 'state')
if known[1] ~= owner or known[2] ~= version or not known[3] then
  return 0
end
if owner == '' and known[3] ~= former and known[3] ~= state then
  return 0
end
redis.call('HSET', connection, 'state', state)
return 1
