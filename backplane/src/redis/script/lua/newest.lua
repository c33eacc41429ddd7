-- Looks for the last entries of a topic, the newest ones first.
-- KEYS
--   log
--   stream
-- ARGV
--   upto         highest offset of an entry
--   most         most entries
--   most_bytes   about how many bytes of entries are looked at
-- Returns epoch, the offset of the oldest entry found or 0, and the number of entries found.
local _, stale = open_log(log)
if stale then
  return stale
end
local oldest, count, bytes, step = 0, 0, 0, 1
while count < tonumber(most) and bytes < tonumber(most_bytes) do
  local found = redis.call('XREVRANGE', stream, upto, '-', 'COUNT', math.min(step, most - count))
  if not found[1] then
    break
  end
  for _, entry in ipairs(found) do
    oldest, count, bytes = tonumber(string.match(entry[1], '^%d+')), count + 1, bytes + #entry[2][4]
  end
  if oldest <= 1 then
    break
  end
  upto = string.format('%.0f', oldest - 1)
  step = math.min(step * 2, 64)
end
return {hub.epoch, oldest, count}
