-- Follows `log.lua` in the script of all changes: the hub's stream of connection events.

-- Drops the unfinished events before `place` that the bounds of the stream have deleted, and counts them.
local function drop_unfinished(stream, place)
  while true do
    local pending = redis.pcall('XPENDING', stream, DELIVERY, '-', '(' .. place, 100)
    if pending.err or #pending == 0 then
      return
    end
    local ids = {}
    for index, entry in ipairs(pending) do
      ids[index] = entry[1]
    end
    redis.call('XACK', stream, DELIVERY, unpack(ids))
    redis.call('HINCRBY', hub.log, 'events_dropped', #ids)
  end
end

-- Trims the hub's stream of events, and notes the first place that is kept: followers with older ones may miss some.
local function trim_events(stream, ...)
  if redis.call('XTRIM', stream, ...) == 0 then
    return false
  end
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local kept = first and first[1]
  if not kept then
    local information = redis.call('XINFO', 'STREAM', stream)
    for index = 1, #information, 2 do
      if information[index] == 'last-generated-id' then
        local millis, number = string.match(information[index + 1], '^(%d+)-(%d+)$')
        kept = millis .. '-' .. string.format('%.0f', number + 1)
      end
    end
  end
  redis.call('HSET', hub.log, 'events_from', kept)
  drop_unfinished(stream, kept)
  return true
end

-- Appends a connection event to the hub's stream: `events.rs` has the rules. The fields of `events` are the stream's key
-- `stream`, `most` events, and `deliver`: `1` where nodes deliver them; then the event is assigned to `node`. The fields of
-- the event follow in pairs. Returns its place.
local function append_event(events, node, ...)
  local stream = events.stream
  local place = redis.call('XADD', stream, '*', 'time', clock(), ...)
  if events.deliver == '1' then
    local claim = {'XCLAIM', stream, DELIVERY, node, 0, place, 'FORCE', 'JUSTID', 'LASTID', place}
    local assigned = redis.pcall(unpack(claim))
    if assigned.err then
      redis.call('XGROUP', 'CREATE', stream, DELIVERY, '$')
      redis.call(unpack(claim))
    end
  end
  if redis.call('XLEN', stream) > tonumber(events.most) then
    trim_events(stream, 'MAXLEN', '~', events.most)
  end
  return place
end

-- Appends the event of a connection that has entered, unless it has one. The fields of `entered` are the connection's
-- `id`, its `payload` and `state`, and `base`, the part that the ids of its events are to share. Returns the part that they
-- do share.
local function report_connected(events, node, connection, entered)
  local base = redis.call('HGET', connection, 'event')
  if base then
    return base
  end
  base = entered.base
  local user = redis.call('HGET', connection, 'user') or ''
  local place = append_event(events, node, 'id', base .. '-connected', 'type', 'connected', 'connection', entered.id,
    'user', user, 'payload', entered.payload, 'state', entered.state)
  redis.call('HSET', connection, 'event', base, 'event_at', place, 'payload', entered.payload, 'held', entered.state)
  return base
end
