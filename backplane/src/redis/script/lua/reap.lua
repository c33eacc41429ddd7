-- Lets one node remove a dead node's connections.
-- KEYS
--   cluster
--   beats        counts of nodes
--   dying        nodes whose connections are being removed
-- ARGV
--   dead         dead node
--   count        the count that it has stood still at, or nothing
--   reaper       the caller
--   unfinished   the entry of a node that began the removal and can't finish it, or nothing
-- Returns whether the caller is the node that removes them.
local _, stale = open_log(cluster)
if stale then
  return stale
end
redis.call('HDEL', cluster, 'none') -- as in `begin_epoch`
local mine = hub.epoch .. ' ' .. reaper
local taken = redis.call('HGET', dying, dead)
if taken == mine then
  return 1
end
if taken then
  if taken ~= unfinished then
    return 0
  end
elseif redis.call('HGET', beats, dead) ~= count then
  return 0
end
redis.call('HDEL', beats, dead)
redis.call('HSET', dying, dead, mine)
return 1
