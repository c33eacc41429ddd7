-- Follows `log.lua` in the scripts that read the log: its age, and the bound below which tails may be unknown.

local evictions = rare().evictions

-- The age of the log's epoch in milliseconds. Where the clock was set back meanwhile, it counts from now on.
local function epoch_age(log)
  local now = clock()
  local began = tonumber(redis.call('HGET', log, 'began') or 0)
  if began > now then
    redis.call('HSET', log, 'began', now)
    began = now
  end
  return now - began
end

-- Returns an offset above which no topic without a tail has an entry. A tail is forgotten `life` after the topic's last
-- entry, so any offset of at most `life` ago is such a bound. Two are kept, to have one that is not too young when the
-- older one ends. Where the server has deleted keys to make room, any tail may be missing: then the bound is the log's
-- last offset.
local function forgotten(log, life)
  life = tonumber(life)
  local now, offset = clock(), hub.offset
  local marks = redis.call('HMGET', log, 'mark', 'mark_at', 'next', 'next_at', 'evicted')
  local mark, mark_at = tonumber(marks[1] or offset), tonumber(marks[2] or now)
  local next, next_at = tonumber(marks[3] or offset), tonumber(marks[4] or now)
  local evicted = evictions()
  if evicted ~= marks[5] then
    mark, mark_at, next_at = offset, now, now
  elseif mark_at > now or next_at > now then
    -- The clock was set back: tails live the longer for it, but those that are made from now on only `life` from now.
    mark_at, next_at = math.min(mark_at, now), math.min(next_at, now)
  elseif now - mark_at <= life and now - next_at <= life / 2 then
    return mark
  end
  if now - mark_at > life then
    mark, mark_at = next, next_at
  end
  if now - mark_at > life then
    mark, mark_at = offset, now
  end
  redis.call('HDEL', log, 'none') -- as in `begin_epoch`
  redis.call('HSET', log, 'mark', mark, 'mark_at', mark_at, 'next', offset, 'next_at', now, 'evicted', evicted)
  return mark
end
