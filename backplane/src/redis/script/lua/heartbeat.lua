-- A node's beat: raises its count, by which the other nodes see that it lives.
-- KEYS: 1 cluster, 2 counts of nodes, 3 nodes whose connections are being removed, 4 secret
-- ARGV: 1 node, 2 the node's secret
-- Returns epoch; the server's time; the node's count, or nothing while its connections are being removed; the secret
-- where it differs; nodes and counts in turn; nodes whose connections are being removed, and epoch and node of each
-- removal, in turn.
local cluster, stale = open_log(KEYS[1], 'counts')
if stale then
  return stale
end
redis.call('HDEL', KEYS[1], 'none') -- beats work also where memory is short: see `begin_epoch`
local epoch = cluster.epoch
if cluster.field == '1' and redis.call('EXISTS', KEYS[2]) == 0 then
  epoch = rare().begin_epoch(KEYS[1], 0) -- the server has deleted all counts to make room: no node was removed
end
local secret = redis.call('GET', KEYS[4])
if not secret then
  redis.call('SET', KEYS[4], ARGV[2])
  secret = ARGV[2]
end
local count = false
local reaper = redis.call('HGET', KEYS[3], ARGV[1])
if not reaper or string.sub(reaper, 1, #epoch + 1) ~= epoch .. ' ' then
  if reaper then
    redis.call('HDEL', KEYS[3], ARGV[1]) -- of another epoch: the server went back to an earlier state
  end
  count = redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
  if count <= 1 then
    -- The node is new here, or was forgotten: the jump shows that also where this answer is lost.
    count = clock()
    redis.call('HSET', KEYS[2], ARGV[1], count)
    redis.call('HSET', KEYS[1], 'counts', 1)
  end
end
return {
  epoch, clock(), count, secret ~= ARGV[2] and secret, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])
}
