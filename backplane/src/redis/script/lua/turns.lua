-- Takes turns to let connections go, after the turns that are taken already.
-- KEYS
--   turns
-- ARGV
--   node
--   count       number of turns
--   rate        most turns of all nodes in a second
--   need        turns in a second that the node needs, or 0
-- Returns the time until the first turn, and the time between two, in microseconds.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('HDEL', turns, 'none') -- a script that has freed some memory may write where it is short
local first, needed = now, tonumber(need)
local own = 'need:' .. node
local fields = redis.call('HGETALL', turns)
for i = 1, #fields, 2 do
  local field, value = fields[i], fields[i + 1]
  if field == 'next' then
    local taken = tonumber(value)
    -- No node takes turns for so long ahead: the server's clock was set back.
    if taken > now and taken < now + 600000000 then
      first = taken
    end
  elseif field ~= own then
    local others, ends = string.match(value, '^(%S+) (%S+)$')
    if tonumber(ends) > now then
      needed = needed + tonumber(others)
    else
      redis.call('HDEL', turns, field)
    end
  end
end
local apart = math.ceil(1000000 / math.max(needed, tonumber(rate)))
local next = first + apart * tonumber(count)
redis.call('HSET', turns, 'next', string.format('%.0f', next))
if tonumber(need) > 0 then
  -- The node asks again when it has used its turns.
  redis.call('HSET', turns, own, need .. ' ' .. string.format('%.0f', next + 2000000))
else
  redis.call('HDEL', turns, own)
end
redis.call('PEXPIRE', turns, 600000)
return {first - now, apart}
