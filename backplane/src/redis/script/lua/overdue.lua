-- Lists connections of a sorted set whose time is up.
-- KEYS: 1 sorted set
-- ARGV: 1 most connections
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', clock(), 'LIMIT', 0, ARGV[1])
