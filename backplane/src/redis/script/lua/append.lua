-- Follows `log.lua` in the scripts that append to the log.

-- Bytes that a stream takes at least.
local STREAM = 4096

-- Keeps an entry in its topic's stream, of which `most` are kept. The topic's newest offset, and its bytes by then, are
-- kept in a key of their own, the tail, that outlives the stream: so an entry can name its predecessor after that was
-- forgotten. Returns the predecessor's offset. `attended`: whether the topic has members now; else the tail's life goes
-- on as it is, which a letter at its end says.
local function keep(topic, offset, entry, most, attended)
  local stream, tail = hub.base .. 'stream:' .. topic, hub.base .. 'tail:' .. topic
  local now = hub.now
  if now >= hub.slice_ends or hub.slice == 0 or hub.bytes >= hub.slice_full then
    local rare, life = rare(), tonumber(hub.life)
    rare.begin_slice(now, life)
    rare.forget_slices(now, life)
  end
  local previous, before, mark = string.match(redis.call('GET', tail) or '0 0', '^(%d+) ?(%d*) ?(.?)')
  before = tonumber(before) or 0
  local size = #entry + #stream + 64
  if before == 0 then
    size = math.max(size, STREAM)
  end
  hub.bytes = hub.bytes + size
  local bytes = before + size
  -- Also after entries that were not kept, of which the tail alone shows.
  local first = before == 0 or tonumber(previous) <= hub.slice_from
  if not attended then
    redis.call('SET', tail, offset .. ' ' .. bytes .. ' u', 'KEEPTTL')
  elseif first or mark ~= '' then
    redis.call('SET', tail, offset .. ' ' .. bytes, 'PX', rare().life_of_tail(hub.tail_life))
  else
    redis.call('SET', tail, offset .. ' ' .. bytes, 'KEEPTTL')
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
  -- Looks whenever another sixteenth of the bytes was appended.
  local part = bounds.topic / 16
  if part > 0 and before % part + size >= part then
    rare().bound_stream(stream)
  end
  if hub.swept < hub.kept then
    rare().sweep(4)
  end
  return previous
end

-- Appends an entry to a topic and pushes it: one offset, one place in the stream, one place on the channel. Where
-- `most`, the number of entries that are kept of the topic, is 0 the entry is only pushed. `members`: the key of the
-- topic's members, where an entry is kept only if a connection could come back for it: the topic has members now, or had
-- some lately, which its tail shows (`note_left`). Returns epoch and offset.
local function append(topic, channel, entry, most, members)
  hub.offset = hub.offset + 1
  local offset, previous = string.format('%.0f', hub.offset), '0'
  if most ~= '0' then
    local attended = not members or redis.call('EXISTS', members) == 1
    local known = attended or redis.call('GET', hub.base .. 'tail:' .. topic)
    if attended or (known and string.sub(known, -1) ~= '-') then
      previous = keep(topic, offset, entry, most, attended)
    else
      previous = rare().pass_by(topic, offset)
    end
  end
  local push = hub.epoch .. ' ' .. offset .. ' ' .. previous .. ' ' .. topic .. '\n' .. entry
  pushes[#pushes + 1] = channel
  pushes[#pushes + 1] = push
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
