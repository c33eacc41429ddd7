-- Makes a node the owner of a connection that has no owner and was never closed.
-- KEYS
--   connection
--   owned           connections of the node
--   tombstone
-- ARGV
--   node
--   id              connection id
--   user            or nothing
--   epoch           the epoch in which the id was generated or nothing
--   settled         age from which on an epoch has every connection (milliseconds)
--   first_epoch     the epoch in which the node came
--   first_settled   the same age for that epoch (milliseconds)
-- Returns the owner, and 1 where this call made it that, else 0; nothing where the connection was closed or is parked;
-- the epoch, its age and a third item where a node may have the connection from an earlier epoch.
local owner = redis.call('HGET', connection, 'node')
if owner == '' or redis.call('EXISTS', tombstone) == 1 then
  return false
end
if owner then
  return {owner, 0}
end
local settles = tonumber(hub.epoch == first_epoch and first_settled or settled)
local age = epoch_age(hub.log)
if hub.epoch ~= epoch and age < settles then
  return {hub.epoch, age, true}
end
local version = redis.call('HINCRBY', hub.log, 'version', 1)
redis.call('HSET', connection, 'node', node, 'user', user, 'version', version)
redis.call('SADD', owned, id)
return {node, 1}
