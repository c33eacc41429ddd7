-- Lists the groups that a user's connections are to join.
-- KEYS: 1 groups of the user
-- ARGV: 1 group, or nothing
-- Returns all of them, or whether the group is one of them.
if ARGV[1] == '' then
  return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. clock(), '+inf')
end
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
return ends and tonumber(ends) > clock() and 1 or 0
