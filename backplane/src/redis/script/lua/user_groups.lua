-- Lists the groups that a user's connections are to join.
-- KEYS
--   user_groups   groups of the user
-- ARGV
--   group         or nothing
-- Returns all of them, or whether the group is one of them.
if group == '' then
  return redis.call('ZRANGEBYSCORE', user_groups, '(' .. clock(), '+inf')
end
local ends = redis.call('ZSCORE', user_groups, group)
return ends and tonumber(ends) > clock() and 1 or 0
