-- Follows `log.lua` in the scripts that append to the log.

-- Bytes that a stream takes at least.
local STREAM = 4096

-- Keeps an entry in its topic's stream, of which `most` are kept. The topic's newest offset is kept in a key of its own,
-- the tail, that outlives the stream: so an entry can name its predecessor after that was forgotten. Usually the tail is the
-- offset alone; else a space and a mark follow, see `rare().decide`. `members`: the key of the topic's members, where an
-- entry is kept only if a connection could come back for it: the topic has members now, or had some lately, which its
-- tail shows. Returns the predecessor's offset.
local function keep(topic, offset, entry, most, members)
  local stream, tail = hub.base .. 'stream:' .. topic, hub.base .. 'tail:' .. topic
  local previous = redis.call('SET', tail, offset, 'KEEPTTL', 'GET')
  local before, is_empty, attended = tonumber(previous or ''), false, nil
  local decided = not before
  if decided then
    local kept
    kept, previous, is_empty, attended = rare().decide(tail, previous, offset, members)
    if not kept then
      return previous
    end
    before = tonumber(previous)
  end
  local now = hub.now
  if now >= hub.slice_ends or hub.slice == 0 or hub.bytes >= hub.slice_full then
    local rare, life = rare(), tonumber(hub.life)
    rare.begin_slice(now, life)
    rare.forget_slices(now, life)
  end
  -- Also after entries that were not kept, of which the tail alone shows.
  local first = is_empty or before <= hub.slice_from
  if first or decided then
    rare().renew_tail(tail, offset, members, attended)
  end
  local added = redis.pcall('XADD', stream, 'MAXLEN', '~', most, offset, 'p', previous, 'e', entry)
  if added.err then
    -- The stream has a higher id than the counter ever gave out: it is not of this log.
    redis.call('DEL', stream)
    redis.call('XADD', stream, offset, 'p', previous, 'e', entry)
  end
  if first then
    -- The topic's first entry of this slice. A hub that no node uses and sweeps any more loses its keys in the end.
    local life = tonumber(hub.life)
    redis.call('SADD', hub.log .. ':slice:' .. hub.slice, stream)
    redis.call('PEXPIRE', hub.log .. ':slice:' .. hub.slice, life * 4)
    redis.call('PEXPIRE', stream, life * 2)
  end
  local size, bytes, part = #entry + #stream + 64, hub.bytes, bounds.topic / 16
  if is_empty then
    size = math.max(size, STREAM)
  end
  hub.bytes = bytes + size
  -- Looks at a stream whenever the hub's bytes pass another sixteenth of a topic's bound. So a topic is looked at about as
  -- often as its own bytes grow by that much, and nothing has to be counted for each.
  if part > 0 and bytes % part + size >= part then
    rare().bound_stream(stream)
  end
  if hub.swept < hub.kept then
    rare().sweep(4)
  end
  return previous
end

-- Appends an entry to a topic and pushes it: one offset, one place in the stream, one place on the channel. Where
-- `most`, the number of entries that are kept of the topic, is 0 the entry is only pushed. `members`: as in `keep`. Returns
-- epoch and offset.
local function append(topic, channel, entry, most, members)
  hub.offset = hub.offset + 1
  local offset, previous = string.format('%.0f', hub.offset), '0'
  if most ~= '0' then
    previous = keep(topic, offset, entry, most, members)
  end
  pushes[#pushes + 1] = channel
  pushes[#pushes + 1] = hub.epoch .. ' ' .. offset .. ' ' .. previous .. ' ' .. topic .. '\n' .. entry
  return hub.epoch, hub.offset
end

-- Publishes the pushes of this call. Those that follow one another on a channel travel together, each with its length
-- in front (`frame.rs`).
local function publish_all()
  local last, first = #pushes, 1
  while first < last do
    local channel, next = pushes[first], first + 2
    if pushes[next] ~= channel then
      redis.call(PUBLISH, channel, pushes[first + 1])
    else
      local parts = {'+', #pushes[first + 1], ' ', pushes[first + 1]}
      while pushes[next] == channel do
        local push = pushes[next + 1]
        parts[#parts + 1] = #push
        parts[#parts + 1] = ' '
        parts[#parts + 1] = push
        next = next + 2
      end
      redis.call(PUBLISH, channel, table.concat(parts))
    end
    first = next
  end
end
