-- Reads events of the hub's stream, whatever became of them.
-- KEYS: 1 log, 2 stream of events
-- ARGV: 1 the place after which they are read; nothing: the end, 2 most events, 3 about how many bytes
-- Returns the place to go on from, whether events after the first place may have been dropped, events.
if ARGV[1] == '' then
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  return {last and last[1] or redis.call('HGET', KEYS[1], 'events_from') or '0-0', 0, {}}
end
local function is_before(place, other)
  local millis, number = string.match(place, '^(%d+)-(%d+)$')
  local other_millis, other_number = string.match(other, '^(%d+)-(%d+)$')
  if millis ~= other_millis then
    return tonumber(millis) < tonumber(other_millis)
  end
  return tonumber(number) < tonumber(other_number)
end
local first = redis.call('HGET', KEYS[1], 'events_from')
local trimmed = first and is_before(ARGV[1], first) and #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) == 0
local reached, events, bytes = ARGV[1], {}, 0
while #events < tonumber(ARGV[2]) and bytes < tonumber(ARGV[3]) do
  local most = math.min(100, ARGV[2] - #events)
  local found = redis.call('XRANGE', KEYS[2], '(' .. reached, '+', 'COUNT', most)
  for _, entry in ipairs(found) do
    events[#events + 1] = entry
    reached = entry[1]
    for _, part in ipairs(entry[2]) do
      bytes = bytes + #part
    end
  end
  if #found < most then
    break
  end
end
return {reached, trimmed and 1 or 0, events}
