-- Reads the epoch and the bounds of a hub's log.
-- KEYS: 1 log
-- ARGV: 1 life of a tail (milliseconds)
-- Returns epoch, the last offset of older epochs, the last offset, the offset up to which tails may be unknown, how
-- many keys the server has deleted to make room.
local log, stale = open_log(KEYS[1], 'start')
if stale then
  return stale
end
return {log.epoch, tonumber(log.field or 0), log.offset, forgotten(KEYS[1], ARGV[1]), tonumber(evictions())}
