-- Reads several topics between two offsets.
-- KEYS: 1 log, 2… streams
-- ARGV: 1 first offset, 2 last offset
-- Returns epoch, then the entries of each stream.
local log, stale = open_log(KEYS[1])
if stale then
  return stale
end
local found = {log.epoch}
for index = 2, #KEYS do
  found[index] = redis.call('XRANGE', KEYS[index], ARGV[1], ARGV[2])
end
return found
