-- The state of a hub's log. Lines before this text set RUN_ID, MARK, PUBLISH, AWAITED and DELIVERY: the run of the server
-- (`run.rs`), the command that publishes (in a cluster channels are sharded), a bound of `directory.lua`, and the consumer
-- group of the nodes that deliver connection events. A text that names another run has another hash: a script can't be
-- called by hash on a server that was restarted or promoted.
--
-- The server makes each function anew in each call, and its collector goes through all scripts that are loaded again and
-- again. So a script has only the files that it needs, functions that few calls need are made for those (`rare`), and
-- numbers become strings as rarely as possible: that takes a fifth of a microsecond each time.

-- The number in front changes with the form of the stored log. So a log of an earlier form counts as one of another
-- run: it begins a new epoch.
local RUN = '2/' .. RUN_ID .. ':' .. MARK

-- The state of the hub's log in this call. A batch changes it here and stores it at its end. `messages`, `life` and
-- `tail_life` are settings that come with a batch: most messages that are kept of a topic, and the lives of the streams and
-- of a tail in milliseconds.
local hub
-- Most bytes that are kept of a topic and of all topics; 0: no bound.
local bounds = {topic = 0, hub = 0}
-- Channels and texts of the pushes of this call, in turn. A batch publishes them at its end, after all it has written.
local pushes = {}

-- The form of the stored state: the last offset; the bytes ever appended; the present slice, the offset before it, and
-- the time and bytes at which it ends; the first slice that is kept, and the first that is not swept.
local STATE = '<dddddddd'

-- The present time of the server in milliseconds; also its whole seconds, and the microseconds beside them, as strings.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000), time[1], time[2]
end

-- Makes the functions that few calls need.
local function rare()
  -- Whether a log was last used in this run of the server. A living server forgets its mark with its replication backlog,
  -- so a name without a mark equals any mark of the same process.
  local function is_same_run(run)
    return run == RUN or (MARK == '' and string.sub(run, 1, #RUN) == RUN)
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
  -- ones. `state`: the stored state, or nothing where the log is new or was stored in an earlier form. Returns the epoch
  -- and the state.
  local function begin_epoch(log, start, state)
    local now = redis.call('TIME')
    local micros = now[1] .. string.format('%06d', now[2])
    local epoch = RUN_ID .. MARK .. '-' .. micros
    local at = now[1] * 1000 + math.floor(now[2] / 1000)
    redis.call('HDEL', log, 'none') -- a script that has freed some memory may write where memory is short
    if not start then
      start = first_offset(log, at)
      redis.call('HSET', log, 'mark', start, 'mark_at', at, 'next', start, 'next_at', at)
    end
    if not state then
      redis.call('DEL', log .. ':slices')
      state = struct.pack(STATE, start, 0, 0, 0, 0, 0, 0, 0)
    end
    redis.call('HSET', log, 'run', RUN, 'epoch', epoch, 'start', start, 'began', at, 'evicted', evictions(), 'evicted_before', evictions(), 'state', state)
    if tonumber(redis.call('HGET', log, 'version') or 0) < tonumber(micros) then
      redis.call('HSET', log, 'version', micros)
    end
    return epoch, state
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

  -- Bounds the bytes of one topic's stream.
  local function bound_stream(stream)
    local used = redis.call('MEMORY', 'USAGE', stream) or 0
    if used > bounds.topic then
      local count = redis.call('XLEN', stream)
      redis.call('XTRIM', stream, 'MAXLEN', math.max(1, math.floor(count * bounds.topic / used * 0.9)))
    end
  end

  -- The life of a tail that is written now, in milliseconds: it lives for `life` after the end of the present slice. So
  -- it need not be set again by the topic's other entries of the slice.
  local function life_of_tail(life)
    return life + math.max(0, hub.slice_ends - hub.now)
  end

  -- Decides on an entry whose topic has no tail, or one with a mark: `0` where no entry of the topic is kept (`note_left`),
  -- `0 -` where its newest one was not kept, `u` where the topic had no members at its first entry of the slice. The tail
  -- has the entry's offset already. Returns whether the entry is kept, its predecessor's offset, and then whether none
  -- of the topic is kept and whether the topic has members.
  local function decide(tail, known, offset, members)
    local previous, mark = string.match(known or '0 0', '^(%d+) ?(.*)$')
    local attended = not members or redis.call('EXISTS', members) == 1
    if not attended and (not known or string.sub(mark, -1) == '-') then
      redis.call('SET', tail, offset .. ' 0 -', 'PX', life_of_tail(hub.tail_life))
      return false, previous
    end
    return true, previous, string.sub(mark, 1, 1) == '0', attended
  end

  -- Lets a tail that has an entry's offset live on for the present slice. Where the topic has no members, its life goes on
  -- as it is. `attended`: whether it has, if that is known.
  local function renew_tail(tail, offset, members, attended)
    if attended == nil then
      attended = not members or redis.call('EXISTS', members) == 1
    end
    if attended then
      redis.call('PEXPIRE', tail, life_of_tail(hub.tail_life))
    else
      redis.call('SET', tail, offset .. ' u', 'KEEPTTL')
    end
  end

  -- Stores a checkpoint. Checkpoints only move forward: one that another checkpoint has overtaken is ignored.
  local function write_checkpoint(connection, epoch, sequence, offset)
    local known = redis.call('HMGET', connection, 'epoch', 'sequence')
    if known[1] ~= epoch or tonumber(known[2]) <= tonumber(sequence) then
      redis.call('HSET', connection, 'epoch', epoch, 'sequence', sequence, 'offset', offset)
    end
  end

  return {
    is_same_run = is_same_run,
    evictions = evictions,
    begin_epoch = begin_epoch,
    begin_slice = begin_slice,
    forget_slices = forget_slices,
    sweep = sweep,
    bound_stream = bound_stream,
    life_of_tail = life_of_tail,
    decide = decide,
    renew_tail = renew_tail,
    write_checkpoint = write_checkpoint,
  }
end

-- Sets the numbers of the stored state.
local function read_state(state)
  hub.offset, hub.bytes, hub.slice, hub.slice_from, hub.slice_ends, hub.slice_full, hub.kept, hub.swept =
    struct.unpack(STATE, state)
end

-- Reads the log's state once for each call, and one more field of it. A new log begins its first epoch. A log of
-- another run of the server is left as it is: the answer is the error STALERUN, and the caller has to make sure of the
-- server's run before it begins an epoch (`renew.lua`). So two connections that name the run differently can't begin
-- epochs in turn.
local function open_log(log, field)
  local known = redis.call('HMGET', log, 'run', 'epoch', 'state', field or 'run')
  local run, epoch, state = known[1], known[2], known[3]
  if not run then
    epoch, state = rare().begin_epoch(log)
  elseif run ~= RUN and not rare().is_same_run(run) then
    return nil, redis.error_reply('STALERUN ' .. run)
  end
  -- All fields are named here: a table that grows is copied.
  hub = {
    log = log, base = string.sub(log, 1, -4), epoch = epoch, state = state, field = known[4], now = 0, offset = 0, bytes = 0,
    slice = 0, slice_from = 0, slice_ends = 0, slice_full = 0, kept = 0, swept = 0, messages = false, life = false,
    tail_life = false
  }
  read_state(state)
  return hub
end
