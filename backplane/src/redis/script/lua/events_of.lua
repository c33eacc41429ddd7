-- Tells whose an unfinished event is.
-- KEYS
--   stream       stream of events
--   connection   connection whose `connected` event is meant, where no place is given
-- ARGV
--   place        place of the event, or nothing
-- Returns the node that it is assigned to; nothing where it is finished, or does not exist.
if place == '' then
  place = redis.call('HGET', connection, 'event_at')
end
if not place or place == '' then
  return false
end
local pending = redis.pcall('XPENDING', stream, DELIVERY, place, place, 1)
if pending.err or #pending == 0 then
  return false
end
return pending[1][2]
