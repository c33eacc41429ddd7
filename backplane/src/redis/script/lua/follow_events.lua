-- Reads events of the hub's stream, whatever became of them.
-- KEYS
--   log
--   stream       stream of events
-- ARGV
--   after        the place after which they are read; nothing: the end
--   most         most events
--   most_bytes   about how many bytes
-- Returns the place to go on from, whether events after the first place may have been dropped, events.
if after == '' then
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  return {last and last[1] or redis.call('HGET', log, 'events_from') or '0-0', 0, {}}
end
local function is_before(place, other)
  local millis, number = string.match(place, '^(%d+)-(%d+)$')
  local other_millis, other_number = string.match(other, '^(%d+)-(%d+)$')
  if millis ~= other_millis then
    return tonumber(millis) < tonumber(other_millis)
  end
  return tonumber(number) < tonumber(other_number)
end
local first = redis.call('HGET', log, 'events_from')
local trimmed = first and is_before(after, first) and #redis.call('XRANGE', stream, after, after) == 0
local reached, events, bytes = after, {}, 0
while #events < tonumber(most) and bytes < tonumber(most_bytes) do
  local count = math.min(100, most - #events)
  local found = redis.call('XRANGE', stream, '(' .. reached, '+', 'COUNT', count)
  for _, entry in ipairs(found) do
    events[#events + 1] = entry
    reached = entry[1]
    for _, part in ipairs(entry[2]) do
      bytes = bytes + #part
    end
  end
  if #found < count then
    break
  end
end
return {reached, trimmed and 1 or 0, events}
