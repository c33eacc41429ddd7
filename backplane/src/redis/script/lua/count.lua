-- Reads how far a sender's numbered messages are, and prolongs the life of the count.
-- KEYS
--   counted     count of the messages
-- ARGV
--   begins      `1` to begin a count where there is none that is under way
--   life        life of the count (milliseconds)
-- Returns the number of the next message; where the last one was published, its number and its text, with a space between
-- them; nothing where there is no count.
local known = redis.call('GET', counted)
if begins == '1' and (not known or string.find(known, ' ', 1, true)) then
  known = '1'
  redis.call('SET', counted, known, 'PX', life)
elseif known then
  redis.call('PEXPIRE', counted, life)
end
return known
