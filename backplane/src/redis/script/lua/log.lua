-- Every script starts with this text, after lines that set RUN_ID, MARK, PUBLISH and AWAITED: the run of the server (`run.rs`),
-- and the command that publishes: in a cluster channels are sharded. A text that names another run has another hash: a
-- script can't be called by hash on a server that was restarted or promoted.

local RUN = RUN_ID .. ':' .. MARK

-- The present time of the server in milliseconds.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Whether a log was last used in this run of the server. A living server forgets its mark with its replication backlog,
-- so a name without a mark equals any mark of the same process.
local function is_same_run(run)
  return run == RUN or (MARK == '' and string.sub(run, 1, #RUN_ID + 1) == RUN)
end

-- The number of keys that the server has deleted because its memory was full.
local function evictions()
  return string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)') or '0'
end

-- The first offset of a new log. Streams of a log that the server has deleted to make room may be left: their entries
-- must not be taken for entries of this one. So its offsets go on from the time, in units of 0.1 ms: that is more than
-- the old log can have given out, and has the 14 digits that Lua writes exactly.
local function first_offset(log, at)
  if redis.call('DEL', log .. ':slices') == 0 and evictions() == '0' then
    return 0
  end
  return at * 10
end

-- Begins another epoch of a log: offsets up to `start` belong to older epochs, which may have given out more versions
-- than the server remembers. So versions of connections go on from the time in microseconds, higher than all older
-- ones.
local function begin_epoch(log, start)
  local now = redis.call('TIME')
  local micros = now[1] .. string.format('%06d', now[2])
  local epoch = RUN_ID .. MARK .. '-' .. micros
  local at = now[1] * 1000 + math.floor(now[2] / 1000)
  redis.call('HDEL', log, 'none') -- a script that has freed some memory may write where memory is short
  redis.call('HSET', log, 'run', RUN, 'epoch', epoch, 'start', start or 0, 'began', at, 'evicted', evictions(), 'evicted_before', evictions())
  if tonumber(redis.call('HGET', log, 'version') or 0) < tonumber(micros) then
    redis.call('HSET', log, 'version', micros)
  end
  if not start then
    start = first_offset(log, at)
    redis.call('HSET', log, 'start', start, 'offset', start, 'mark', start, 'mark_at', at, 'next', start, 'next_at', at)
  end
  return epoch, at, start
end

-- The state of the hub's log in this call. A batch changes it here and stores it at its end.
local hub
-- Most bytes that are kept of a topic and of all topics; 0: no bound.
local bounds = {topic = 0, hub = 0}

-- The log's state that a batch works with, beside run and epoch: the last offset; the time at which the epoch began;
-- the bytes ever appended; the present slice, the offset before it, and the time and bytes at which it ends; the first
-- slice that is kept, and the first that is not swept.
local FIELDS = {'offset', 'began', 'bytes', 'slice', 'slice_from', 'slice_ends', 'slice_full', 'kept', 'swept'}

-- Reads the log's state once for each call, and one more field of it. A new log begins its first epoch. A log of
-- another run of the server is left as it is: the answer is the error STALERUN, and the caller has to make sure of the
-- server's run before it begins an epoch (`renew.lua`). So two connections that name the run differently can't begin
-- epochs in turn.
local function open_log(log, field)
  local known = redis.call('HMGET', log, 'run', 'epoch', field or 'run', unpack(FIELDS))
  if known[1] and not is_same_run(known[1]) then
    return nil, redis.error_reply('STALERUN ' .. known[1])
  end
  hub = {log = log, epoch = known[2], field = known[3]}
  for index, name in ipairs(FIELDS) do
    hub[name] = tonumber(known[index + 3] or 0)
  end
  if not known[1] then
    local epoch, began, start = begin_epoch(log, known[4])
    hub.epoch, hub.began, hub.offset = epoch, began, tonumber(start)
  end
  return hub
end

-- Begins a slice of the log. Retention works by whole slices: an eighth of the retention's time, or a sixteenth of the
-- hub's bytes, whichever is over first.
local function begin_slice(now, life)
  hub.slice = hub.slice + 1
  hub.slice_from = hub.offset
  hub.slice_ends = now + math.max(1, math.floor(life / 8))
  hub.slice_full = bounds.hub > 0 and hub.bytes + math.ceil(bounds.hub / 16) or 2 ^ 53
  redis.call('RPUSH', hub.log .. ':slices', hub.slice .. ' ' .. hub.offset .. ' ' .. now .. ' ' .. hub.bytes)
  redis.call('PEXPIRE', hub.log .. ':slices', life * 4)
  if hub.kept == 0 then
    hub.kept, hub.swept = hub.slice, hub.slice
  end
end

-- Forgets slices whose last entry is too old, and slices beyond the hub's bytes.
local function forget_slices(now, life)
  while true do
    local slices = redis.call('LRANGE', hub.log .. ':slices', 0, 1)
    if not slices[2] then
      return
    end
    local before = string.match(slices[1], '(%d+)$')
    local next_slice, from, began = string.match(slices[2], '^(%d+) (%d+) (%d+) ')
    local too_much = bounds.hub > 0 and hub.bytes - before > bounds.hub
    if not too_much and now - began <= life then
      return
    end
    redis.call('LPOP', hub.log .. ':slices')
    redis.call('HSET', hub.log, 'min', from)
    hub.kept = tonumber(next_slice)
  end
end

-- Takes entries of forgotten slices out of the streams, `most` topics at a time.
local function sweep(most)
  if hub.swept >= hub.kept then
    return
  end
  local min = redis.call('HGET', hub.log, 'min')
  while hub.swept < hub.kept and most > 0 do
    local streams = redis.call('SPOP', hub.log .. ':slice:' .. hub.swept, most)
    for _, stream in ipairs(streams) do
      redis.call('XTRIM', stream, 'MINID', (min + 1) .. '-0')
      if redis.call('XLEN', stream) == 0 then
        redis.call('DEL', stream)
      end
    end
    most = most - #streams - 1
    if most >= 0 then
      hub.swept = hub.swept + 1
    end
  end
end

-- Bounds the bytes of one topic's stream, whenever another sixteenth of them was appended.
local function bound_stream(stream, before, bytes)
  local part = math.ceil(bounds.topic / 16)
  if bounds.topic == 0 or math.floor(before / part) == math.floor(bytes / part) then
    return
  end
  local used = redis.call('MEMORY', 'USAGE', stream) or 0
  if used > bounds.topic then
    local count = redis.call('XLEN', stream)
    redis.call('XTRIM', stream, 'MAXLEN', math.max(1, math.floor(count * bounds.topic / used * 0.9)))
  end
end

-- Bytes that a stream takes at least.
local STREAM = 4096

-- Keeps an entry in its topic's stream. The topic's newest offset, and its bytes by then, are kept in a key of their
-- own, the tail, that outlives the stream: so an entry can name its predecessor after that was forgotten. Returns the
-- predecessor's offset. `attended`: whether the topic has members now; else the tail's life goes on as it is.
local function keep(stream, tail, offset, entry, most, life, tail_life, attended)
  local now = hub.now or clock()
  hub.now = now
  if hub.slice == 0 or now >= hub.slice_ends or hub.bytes >= hub.slice_full then
    begin_slice(now, life)
    forget_slices(now, life)
  end
  local previous, before = string.match(redis.call('GET', tail) or '0 0', '^(%d+) ?(%d*)')
  local size = #entry + #stream + 64
  if (tonumber(before) or 0) == 0 then
    size = math.max(size, STREAM)
  end
  hub.bytes = hub.bytes + size
  local bytes = (tonumber(before) or 0) + size
  if attended then
    redis.call('SET', tail, offset .. ' ' .. bytes, 'PX', tail_life)
  else
    redis.call('SET', tail, offset .. ' ' .. bytes, 'KEEPTTL')
  end
  local id = offset .. '-0'
  local added = redis.pcall('XADD', stream, 'MAXLEN', '~', most, id, 'p', previous, 'e', entry)
  if type(added) == 'table' and added.err then
    -- The stream has a higher id than the counter ever gave out: it is not of this log.
    redis.call('DEL', stream)
    redis.call('XADD', stream, id, 'p', previous, 'e', entry)
  end
  if tonumber(previous) <= hub.slice_from then
    -- The topic's first entry of this slice. A hub that no node uses and sweeps any more loses its keys in the end.
    redis.call('SADD', hub.log .. ':slice:' .. hub.slice, stream)
    redis.call('PEXPIRE', hub.log .. ':slice:' .. hub.slice, life * 4)
    redis.call('PEXPIRE', stream, life * 2)
  end
  bound_stream(stream, bytes - size, bytes)
  sweep(4)
  return previous
end

-- The age of the log's epoch in milliseconds. Where the clock was set back meanwhile, it counts from now on.
local function epoch_age(log)
  local now = clock()
  local began = tonumber(redis.call('HGET', log, 'began') or 0)
  if began > now then
    redis.call('HSET', log, 'began', now)
    began = now
  end
  return now - began
end

-- Records that an entry of a topic was not kept, for as long as any topic's newest offset is. Returns the offset of its
-- predecessor.
local function pass_by(tail, offset, life)
  local previous = string.match(redis.call('GET', tail) or '0', '^%d+')
  redis.call('SET', tail, offset .. ' 0 -', 'PX', life)
  return previous
end

-- Whether a connection could come back for entries of a topic: the topic has members now, or had some lately, which its
-- tail shows (`note_left`). Also returns whether it has members now.
local function is_wanted(members, tail)
  local attended = members == nil or members == '' or redis.call('EXISTS', members) == 1
  local known = not attended and redis.call('GET', tail)
  return attended or (known and string.sub(known, -1) ~= '-'), attended
end

-- Appends an entry to a topic and pushes it: one offset, one place in the stream, one place on the channel. Where
-- `most` is 0 the entry is only pushed. `also`: a second channel. `members`: the key of the topic's members, where an
-- entry is kept only if a connection could come back for it. Returns epoch and offset.
local function append(stream, tail, channel, topic, entry, most, life, tail_life, also, members)
  local offset = hub.offset + 1
  hub.offset = offset
  local previous = 0
  if most ~= '0' then
    local wanted, attended = is_wanted(members, tail)
    if wanted then
      previous = keep(stream, tail, offset, entry, most, tonumber(life), tail_life, attended)
    else
      previous = pass_by(tail, offset, tail_life)
    end
  end
  local push = hub.epoch .. ' ' .. offset .. ' ' .. previous .. ' ' .. topic .. '\n' .. entry
  redis.call(PUBLISH, channel, push)
  if also then
    redis.call(PUBLISH, also, push)
  end
  return hub.epoch, offset
end

-- Returns an offset above which no topic without a tail has an entry. A tail is forgotten `life` after the topic's last
-- entry, so any offset of at most `life` ago is such a bound. Two are kept, to have one that is not too young when the
-- older one ends. Where the server has deleted keys to make room, any tail may be missing: then the bound is the log's
-- last offset.
local function forgotten(log, life)
  life = tonumber(life)
  local now, offset = clock(), hub.offset
  local marks = redis.call('HMGET', log, 'mark', 'mark_at', 'next', 'next_at', 'evicted')
  local mark, mark_at = tonumber(marks[1] or offset), tonumber(marks[2] or now)
  local next, next_at = tonumber(marks[3] or offset), tonumber(marks[4] or now)
  local evicted = evictions()
  if evicted ~= marks[5] then
    mark, mark_at, next_at = offset, now, now
  elseif mark_at > now or next_at > now then
    -- The clock was set back: tails live the longer for it, but those that are made from now on only `life` from now.
    mark_at, next_at = math.min(mark_at, now), math.min(next_at, now)
  elseif now - mark_at <= life and now - next_at <= life / 2 then
    return mark
  end
  if now - mark_at > life then
    mark, mark_at = next, next_at
  end
  if now - mark_at > life then
    mark, mark_at = offset, now
  end
  redis.call('HDEL', log, 'none') -- as in `begin_epoch`
  redis.call('HSET', log, 'mark', mark, 'mark_at', mark_at, 'next', offset, 'next_at', now, 'evicted', evicted)
  return mark
end

-- Bytes as a field of a protobuf message.
local function field(number, bytes)
  local head, length = string.char(number * 8 + 2), #bytes
  while length > 127 do
    head = head .. string.char(length % 128 + 128)
    length = math.floor(length / 128)
  end
  return head .. string.char(length) .. bytes
end

-- A stored name as JSON. `stored.rs` writes control characters as \2 and two hexadecimal digits.
local function quoted(name)
  return '"' .. string.gsub(string.gsub(name, '["\\]', '\\%0'), '\2', '\\u00') .. '"'
end

-- Whether a group is the server's own.
local function is_reserved(group)
  return string.byte(group) == 1
end

-- Appends the presence message of a join or leave to the group's watchers: `presence.rs` has the rules and the same
-- message. `presence`: empty where the hub has none; else the prefixes of streams' keys, tails' keys and topics'
-- channels, most entries, life of the stream, life of the tail, `1` where messages are kept also for topics without
-- members, in lines.
local function announce(presence, event, group, connection, id, of_group)
  if presence == '' or is_reserved(group) then
    return
  end
  local stream, tail, channel, most, life, tail_life, keeps_unread =
    string.match(presence, '^(.-)\n(.-)\n(.-)\n(.-)\n(.-)\n(.-)\n(.*)$')
  local object = '{"event":"' .. event .. '","group":' .. quoted(group) .. ',"connectionId":' .. quoted(id)
  local user = redis.call('HGET', connection, 'user')
  if user and user ~= '' then
    object = object .. ',"userId":' .. quoted(user)
  end
  local topic = 'g:\1' .. group
  local entry = field(1, field(1, 'presence') .. field(2, object .. '}'))
  local watchers = keeps_unread ~= '1' and string.sub(of_group, 1, #of_group - #group) .. '\1' .. group or ''
  append(stream .. topic, tail .. topic, channel .. topic, topic, entry, most, life, tail_life, nil, watchers)
end

-- Counts such a topic. Returns whether there are not too many in this second: groups that come and go without pause
-- must not fill the server.
local function may_await()
  local key = hub.log .. ':awaited:' .. redis.call('TIME')[1]
  local count = redis.call('INCR', key)
  if count == 1 then
    redis.call('PEXPIRE', key, 5000)
  end
  return count <= AWAITED
end

-- Records that a topic has lost its last member: connections that left may come back for entries from now on.
local function note_left(topic)
  local life = redis.call('HGET', hub.log, 'tails') or 600000
  local tail = string.sub(hub.log, 1, -4) .. 'tail:' .. topic
  local known = redis.call('GET', tail)
  if known and string.sub(known, -1) ~= '-' then
    redis.call('PEXPIRE', tail, life)
  elseif may_await() then
    redis.call('SET', tail, string.match(known or '0', '^%d+') .. ' 0', 'PX', life)
  end
end

-- Lists a connection as a member of a group, and the group as one that has connections. The members of groups and users
-- are sorted sets without scores: pages of them are read in the order of their ids.
local function list_member(groups, of_group, group, connection, id, presence)
  if redis.call('ZADD', of_group, 0, id) == 0 then
    return
  end
  if not is_reserved(group) then
    redis.call('SADD', groups, group)
  end
  announce(presence, 'join', group, connection, id, of_group)
end

-- The reverse of `list_member`.
local function unlist_member(groups, of_group, group, connection, id, presence)
  if redis.call('ZREM', of_group, id) == 0 then
    return
  end
  if redis.call('EXISTS', of_group) == 0 then
    redis.call('SREM', groups, group)
    note_left('g:' .. group)
  end
  announce(presence, 'leave', group, connection, id, of_group)
end

-- Takes a connection out of some of its groups. Returns the number of groups that are left.
local function unlist_some(groups, of_connection, of_group, connection, id, presence, most)
  for _, group in ipairs(redis.call('SPOP', of_connection, most)) do
    unlist_member(groups, of_group .. group, group, connection, id, presence)
  end
  return redis.call('SCARD', of_connection)
end

-- Whether a connection's version in the directory is older than the one in which a node owns it: of two nodes that both
-- take themselves for the owner, the one with the higher version took it over later. A node need not know its version.
local function is_older(known, version)
  return version ~= '' and tonumber(known or 0) < tonumber(version)
end

-- Stores a checkpoint. Checkpoints only move forward: one that another checkpoint has overtaken is ignored.
local function write_checkpoint(connection, epoch, sequence, offset)
  local known = redis.call('HMGET', connection, 'epoch', 'sequence')
  if known[1] ~= epoch or tonumber(known[2]) <= tonumber(sequence) then
    redis.call('HSET', connection, 'epoch', epoch, 'sequence', sequence, 'offset', offset)
  end
end

-- The consumer group of the nodes that deliver connection events.
local DELIVERY = 'hubcast'

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

-- Appends the event of a connection that has entered at a place of the log, unless it has one. Returns the part that the ids of its events share; nothing where the hub has no events.
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
