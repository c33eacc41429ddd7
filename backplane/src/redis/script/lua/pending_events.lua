-- Counts the unfinished events.
-- KEYS: 1 stream of events
-- Returns their number, the age of the oldest one in milliseconds, and nodes with the numbers of theirs.
local pending = redis.pcall('XPENDING', KEYS[1], DELIVERY)
if pending.err or pending[1] == 0 then
  return {0, 0, {}}
end
return {pending[1], math.max(0, clock() - string.match(pending[2], '^%d+')), pending[4]}
