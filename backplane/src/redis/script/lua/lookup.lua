-- Reads the directory's entry of a connection.
-- KEYS: 1 log, 2 connection, 3 tombstone
-- Returns owner, version, user and state; nothing where the connection was closed; the log's epoch and its age in
-- milliseconds where there is neither a connection nor a tombstone.
local known = redis.call('HMGET', KEYS[2], 'node', 'version', 'user', 'state')
if known[1] then
  return known
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  return false
end
local _, stale = open_log(KEYS[1])
if stale then
  return stale
end
return {hub.epoch, epoch_age(KEYS[1])}
