-- Tells whose an unfinished event is.
-- KEYS: 1 stream of events, 2 connection whose `connected` event is meant, where none is given
-- ARGV: 1 place of the event, or nothing
-- Returns the node that it is assigned to; nothing where it is finished, or does not exist.
local place = ARGV[1] ~= '' and ARGV[1] or redis.call('HGET', KEYS[2], 'event_at')
if not place or place == '' then
  return false
end
local pending = redis.pcall('XPENDING', KEYS[1], DELIVERY, place, place, 1)
if pending.err or #pending == 0 then
  return false
end
return pending[1][2]
