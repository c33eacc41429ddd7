-- Reads the epoch and the bounds of a hub's log.
-- KEYS
--   log
-- ARGV
--   tail_life   life of a tail (milliseconds)
-- Returns epoch, the last offset of older epochs, the last offset, the offset up to which tails may be unknown, how
-- many keys the server has deleted to make room.
local _, stale = open_log(log, 'start')
if stale then
  return stale
end
return {hub.epoch, tonumber(hub.field or 0), hub.offset, forgotten(log, tail_life), tonumber(evictions())}
