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

-- Appends a connection event to the hub's stream: `events.rs` has the rules. `events`: in lines, the stream's key, most
-- events, and `1` where nodes deliver them; then the event is assigned to `node`. Returns its place.
local function append_event(events, node, ...)
  local stream, most, deliver = string.match(events, '^(.-)\n(.-)\n(.*)$')
  local place = redis.call('XADD', stream, '*', 'time', clock(), ...)
  if deliver == '1' then
    local claim = {'XCLAIM', stream, DELIVERY, node, 0, place, 'FORCE', 'JUSTID', 'LASTID', place}
    local assigned = redis.pcall(unpack(claim))
    if assigned.err then
      redis.call('XGROUP', 'CREATE', stream, DELIVERY, '$')
      redis.call(unpack(claim))
    end
  end
  if redis.call('XLEN', stream) > tonumber(most) then
    trim_events(stream, 'MAXLEN', '~', most)
  end
  return place
end

-- Appends the event of a connection that has entered at a place of the log, unless it has one. Returns the part that
-- the ids of its events share; nothing where the hub has no events.
local function report_connected(events, node, connection, id, epoch, offset, payload, state)
  if events == '' then
    return false
  end
  local base = redis.call('HGET', connection, 'event')
  if base then
    return base
  end
  base = epoch .. '-' .. string.format('%.0f', offset)
  local user = redis.call('HGET', connection, 'user') or ''
  local place = append_event(events, node, 'id', base .. '-connected', 'type', 'connected', 'connection', id,
    'user', user, 'payload', payload, 'state', state)
  redis.call('HSET', connection, 'event', base, 'event_at', place, 'payload', payload, 'held', state)
  return base
end
