-- Records that a user's connections are to join a group.
-- KEYS
--   user_groups   groups of the user
-- ARGV
--   group
--   life          its time (milliseconds)
--   most          most groups: one more replaces the group whose time ends first
-- Returns 1.
local now = clock()
redis.call('ZREMRANGEBYSCORE', user_groups, '-inf', now)
if not redis.call('ZSCORE', user_groups, group) then
  local over = redis.call('ZCARD', user_groups) + 1 - most
  if over > 0 then
    redis.call('ZREMRANGEBYRANK', user_groups, 0, over - 1)
  end
end
redis.call('ZADD', user_groups, now + life, group)
local last = redis.call('ZRANGE', user_groups, -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', user_groups, string.format('%.0f', last[2]))
return 1
