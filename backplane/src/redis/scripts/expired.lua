-- Names parked connections whose time is up.
-- KEYS: 1 parked connections
-- ARGV: 1 most of them
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
