-- Reads the directory's entry of a connection.
-- KEYS
--   log
--   connection
--   tombstone
-- ARGV
-- Returns owner, version, user and state; nothing where the connection was closed; the log's epoch and its age in
-- milliseconds where there is neither a connection nor a tombstone.
local known = redis.call('HMGET', connection, 'node', 'version', 'user', 'state')
if known[1] then
  return known
end
if redis.call('EXISTS', tombstone) == 1 then
  return false
end
local _, stale = open_log(log)
if stale then
  return stale
end
return {hub.epoch, epoch_age(log)}
