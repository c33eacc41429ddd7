-- Reads the newest offsets of topics.
-- KEYS
--   log
--   tail…       the topics' tails
-- ARGV
--   tail_life   life of a tail (milliseconds)
-- Returns the offset up to which tails may be unknown, then for each topic its newest offset, or nothing where it is
-- not known.
local _, stale = open_log(log)
if stale then
  return stale
end
local found = {forgotten(log, tail_life)}
for index = FIRST_TAIL, LAST_TAIL do
  local tail = redis.call('GET', KEYS[index])
  found[#found + 1] = tail and tonumber(string.match(tail, '^%d+')) or false
end
return found
