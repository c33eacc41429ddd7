-- Lets one node remove a dead node's connections. Where that node dies too, another may after a while.
-- KEYS: 1 nodes, 2 nodes whose connections are being removed
-- ARGV: 1 dead node, 2 time after the lease's end, 3 time that the removal may take (milliseconds)
-- Returns whether the caller is the one.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
local taken = redis.call('ZSCORE', KEYS[2], ARGV[1])
if taken then
  if tonumber(taken) > now then
    return 0
  end
elseif not lease or tonumber(lease) > now - ARGV[2] then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
return 1
