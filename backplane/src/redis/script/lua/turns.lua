-- Takes turns to let connections go, after the turns that are taken already.
-- KEYS: 1 turns
-- ARGV: 1 node, 2 number of turns, 3 most turns of all nodes in a second, 4 turns in a second that the node needs, or 0
-- Returns the time until the first turn, and the time between two, in microseconds.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('HDEL', KEYS[1], 'none') -- a script that has freed some memory may write where it is short
local first, needed = now, tonumber(ARGV[4])
local own = 'need:' .. ARGV[1]
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local field, value = fields[i], fields[i + 1]
  if field == 'next' then
    local taken = tonumber(value)
    -- No node takes turns for so long ahead: the server's clock was set back.
    if taken > now and taken < now + 600000000 then
      first = taken
    end
  elseif field ~= own then
    local need, ends = string.match(value, '^(%S+) (%S+)$')
    if tonumber(ends) > now then
      needed = needed + tonumber(need)
    else
      redis.call('HDEL', KEYS[1], field)
    end
  end
end
local apart = math.ceil(1000000 / math.max(needed, tonumber(ARGV[3])))
local next = first + apart * tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'next', string.format('%.0f', next))
if tonumber(ARGV[4]) > 0 then
  -- The node asks again when it has used its turns.
  redis.call('HSET', KEYS[1], own, ARGV[4] .. ' ' .. string.format('%.0f', next + 2000000))
else
  redis.call('HDEL', KEYS[1], own)
end
redis.call('PEXPIRE', KEYS[1], 600000)
return {first - now, apart}
