-- Looks for the last entries of a topic, the newest ones first.
-- KEYS: 1 log, 2 stream
-- ARGV: 1 highest offset of an entry, 2 most entries, 3 about how many bytes of entries are looked at
-- Returns epoch, the offset of the oldest entry found or 0, and the number of entries found.
local log, stale = open_log(KEYS[1])
if stale then
  return stale
end
local oldest, count, bytes, step = 0, 0, 0, 1
local before = ARGV[1]
while count < tonumber(ARGV[2]) and bytes < tonumber(ARGV[3]) do
  local found = redis.call('XREVRANGE', KEYS[2], before, '-', 'COUNT', math.min(step, ARGV[2] - count))
  if not found[1] then
    break
  end
  for _, entry in ipairs(found) do
    oldest, count, bytes = tonumber(string.match(entry[1], '^%d+')), count + 1, bytes + #entry[2][4]
  end
  if oldest <= 1 then
    break
  end
  before = string.format('%.0f', oldest - 1)
  step = math.min(step * 2, 64)
end
return {log.epoch, oldest, count}
