-- A node's beat: raises its count, by which the other nodes see that it lives.
-- KEYS
--   cluster
--   beats        counts of nodes
--   dying        nodes whose connections are being removed
--   secret
-- ARGV
--   node
--   own_secret   the node's secret
-- Returns epoch; the server's time; the node's count, or nothing while its connections are being removed; the secret
-- where it differs; nodes and counts in turn; nodes whose connections are being removed, and epoch and node of each
-- removal, in turn.
local _, stale = open_log(cluster, 'counts')
if stale then
  return stale
end
redis.call('HDEL', cluster, 'none') -- beats work also where memory is short: see `begin_epoch`
local epoch = hub.epoch
if hub.field == '1' and redis.call('EXISTS', beats) == 0 then
  epoch = rare().begin_epoch(cluster, 0) -- the server has deleted all counts to make room: no node was removed
end
local known_secret = redis.call('GET', secret)
if not known_secret then
  redis.call('SET', secret, own_secret)
  known_secret = own_secret
end
local count = false
local reaper = redis.call('HGET', dying, node)
if not reaper or string.sub(reaper, 1, #epoch + 1) ~= epoch .. ' ' then
  if reaper then
    redis.call('HDEL', dying, node) -- of another epoch: the server went back to an earlier state
  end
  count = redis.call('HINCRBY', beats, node, 1)
  if count <= 1 then
    -- The node is new here, or was forgotten: the jump shows that also where this answer is lost.
    count = clock()
    redis.call('HSET', beats, node, count)
    redis.call('HSET', cluster, 'counts', 1)
  end
end
return {
  epoch, clock(), count, known_secret ~= own_secret and known_secret, redis.call('HGETALL', beats),
  redis.call('HGETALL', dying)
}
