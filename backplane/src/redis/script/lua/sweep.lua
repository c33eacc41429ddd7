-- Forgets slices that are too old or too much, also where no entry is appended, and notices soon when the server has
-- deleted keys, so that entries after that count as complete.
-- KEYS
-- ARGV
--   most          most topics that are looked at
--   events        key of the stream of events, or nothing
--   events_life   life of events (milliseconds)
-- Returns how many slices wait to be swept, and how many events were dropped unfinished since the last sweep.
local life = tonumber(hub.life)
forgotten(hub.log, hub.tail_life)
if hub.slice > 0 and hub.now >= hub.slice_ends and hub.slice_from < hub.offset then
  rare().begin_slice(hub.now, life)
end
rare().forget_slices(hub.now, life)
rare().sweep(tonumber(most))

-- Forgets the records of nodes that have sent no batch for longer than any node repeats one, and looks for them once in
-- ten minutes.
local tidied = tonumber(redis.call('HGET', hub.log, 'tidied') or 0)
if math.abs(hub.now - tidied) > 600000 then
  redis.call('HSET', hub.log, 'tidied', hub.now)
  for _, field in ipairs(redis.call('HKEYS', hub.log)) do
    if string.sub(field, 1, 6) == 'batch:' then
      local sent = string.match(redis.call('HGET', hub.log, field), '^%d+ (%d+)')
      if hub.now - sent * 1000 > 3600000 then
        redis.call('HDEL', hub.log, field)
      end
    end
  end
end
if events == '' then
  return {hub.kept - hub.swept, 0}
end
local oldest = string.format('%.0f', math.max(0, hub.now - events_life))
if not trim_events(events, 'MINID', '~', oldest, 'LIMIT', 1000) then
  trim_events(events, 'MINID', oldest) -- the rest of the oldest node of the stream, which has some 100 events
end
local dropped = redis.call('HGET', hub.log, 'events_dropped')
if dropped then
  redis.call('HDEL', hub.log, 'events_dropped')
end
return {hub.kept - hub.swept, tonumber(dropped or 0)}
