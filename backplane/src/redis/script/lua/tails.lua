-- Reads the newest offsets of topics.
-- KEYS: 1 log, 2… tails
-- ARGV: 1 life of a tail (milliseconds)
-- Returns the offset up to which tails may be unknown, then for each topic its newest offset, or nothing where it is
-- not known.
local log, stale = open_log(KEYS[1])
if stale then
  return stale
end
local found = {forgotten(KEYS[1], ARGV[1])}
for index = 2, #KEYS do
  local tail = redis.call('GET', KEYS[index])
  found[index] = tail and tonumber(string.match(tail, '^%d+')) or false
end
return found
