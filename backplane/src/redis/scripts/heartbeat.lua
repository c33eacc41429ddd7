-- A node's sign of life.
-- KEYS: 1 cluster, 2 nodes, 3 nodes whose connections are being removed, 4 secret
-- ARGV: 1 node, 2 lease, 3 time after the lease's end until others remove its connections (milliseconds),
--       4 the secret the node has
-- Returns epoch, state of the node (0 new, 1 known, 2 being removed), secret, living nodes, nodes to be removed.
local known = redis.call('HMGET', KEYS[1], 'run', 'epoch')
local time = redis.call('TIME')
local epoch = known[2]
if not known[1] or not is_same_run(known[1]) then
  epoch = RUN_ID .. MARK .. '-' .. time[1] .. string.format('%06d', time[2])
  redis.call('HSET', KEYS[1], 'run', RUN, 'epoch', epoch)
end
redis.call('SET', KEYS[4], ARGV[4], 'NX')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = 2
if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then
  state = redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1]) == 1 and 0 or 1
end
local dead = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3])
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
  dead[#dead + 1] = node
end
local living = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')
return {epoch, state, redis.call('GET', KEYS[4]), living, dead}
