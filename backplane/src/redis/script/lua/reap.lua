-- Lets one node remove a dead node's connections.
-- KEYS: 1 cluster, 2 counts of nodes, 3 nodes whose connections are being removed
-- ARGV: 1 dead node, 2 the count that it has stood still at, or nothing, 3 the caller,
--       4 the entry of a node that began the removal and can't finish it, or nothing
-- Returns whether the caller is the node that removes them.
local cluster, stale = open_log(KEYS[1])
if stale then
  return stale
end
redis.call('HDEL', KEYS[1], 'none') -- as in `begin_epoch`
local mine = cluster.epoch .. ' ' .. ARGV[3]
local taken = redis.call('HGET', KEYS[3], ARGV[1])
if taken == mine then
  return 1
end
if taken then
  if taken ~= ARGV[4] then
    return 0
  end
elseif redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], mine)
return 1
