-- Parks a resumable connection: it has no owner until a node takes it over.
-- KEYS
--   connection
--   owned       connections of the owner
--   parked      parked connections
-- ARGV
--   owner
--   version     or nothing
--   id          connection id
--   wait        time that it waits (milliseconds)
--   checkpoint {epoch, sequence, offset}   or nothing
--   reason      reason in its event if no node takes it over
-- Returns whether the owner had it in that version, or parked it in that version, and it can be taken over.
local known = redis.call('HMGET', connection, 'node', 'version', 'epoch', 'parked_by')
if known[1] == '' and version ~= '' and known[2] == version and known[4] == owner then
  return 1
end
if known[1] ~= owner or (version ~= '' and known[2] ~= version) or not known[3] then
  return 0
end
redis.call('HSET', connection, 'node', '', 'parked_by', owner, 'parked_for', reason)
if checkpoint then
  rare().write_checkpoint(connection, checkpoint.epoch, checkpoint.sequence, checkpoint.offset)
end
redis.call('SREM', owned, id)
redis.call('ZADD', parked, clock() + wait, id)
return 1
