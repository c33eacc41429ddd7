-- Lists connections of a sorted set whose time is up.
-- KEYS
--   waiting     sorted set
-- ARGV
--   most        most connections
return redis.call('ZRANGEBYSCORE', waiting, '-inf', clock(), 'LIMIT', 0, most)
