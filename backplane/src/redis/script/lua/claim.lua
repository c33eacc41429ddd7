-- Makes a node the owner of a connection that has no owner and was never closed.
-- KEYS: 1 log, 2 connection, 3 connections of the node, 4 tombstone
-- ARGV: 1 node, 2 connection id, 3 user or nothing, 4 the epoch in which the id was generated or nothing,
--       5 age from which on an epoch has every connection, 6 the epoch in which the node came,
--       7 the same age for that epoch (milliseconds)
-- Returns the owner, and 1 where this call made it that, else 0; nothing where the connection was closed or is parked;
-- the epoch, its age and a third item where a node may have the connection from an earlier epoch.
local owner = redis.call('HGET', KEYS[2], 'node')
if owner == '' or redis.call('EXISTS', KEYS[4]) == 1 then
  return false
end
if owner then
  return {owner, 0}
end
local settled = tonumber(hub.epoch == ARGV[6] and ARGV[7] or ARGV[5])
local age = epoch_age(KEYS[1])
if hub.epoch ~= ARGV[4] and age < settled then
  return {hub.epoch, age, true}
end
local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HSET', KEYS[2], 'node', ARGV[1], 'user', ARGV[3], 'version', version)
redis.call('SADD', KEYS[3], ARGV[2])
return {ARGV[1], 1}
