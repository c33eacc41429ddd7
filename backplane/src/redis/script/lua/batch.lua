-- Carries out changes of a hub, in order. Each is a function of `operations`, which stands before this text: a script
-- file that finds its own keys and arguments between the places it is told. `MIXED` is set where some of them free memory.
-- KEYS
--   log
--   operation_key…   the keys of each operation in turn
-- ARGV
--   node
--   number           number of the batch
--   epoch            the log's epoch as the node knows it, or nothing
--   topic_bytes      bytes that are kept of a topic
--   hub_bytes        bytes that are kept of the hub
--   messages         most messages that are kept of a topic
--   life             life of the streams (milliseconds)
--   tail_life        life of a tail (milliseconds)
--   operation…       for each operation: name, deadline in the server's time (milliseconds), number of keys, number of
--                    arguments, arguments
-- Returns the server's time in seconds and microseconds, the log's epoch and for how long it has lasted (milliseconds),
-- or nothing for both where the node knows the epoch, each with a space behind it and all in one line; then, packed, for
-- each operation its outcome and its answer or the text of its error (`answers.rs`). Where the epoch is another one,
-- nothing is carried out and nothing is packed: the node may have to append gaps first. The number and the answers of
-- each node's last batch are kept. So a batch whose answer was lost can be sent again: it is carried out once. A batch
-- that arrives after a newer one, or past its deadlines, is not carried out at all.
local DONE, FAILED, EXPIRED, FULL = 0, 1, 2, 3
-- Operations that make the data grow. They are refused where the server has no memory left; all others still work.
local GROWING = ' claim count enter join list publish publish_direct publish_numbered publish_once set_state user_join '

local record = 'batch:' .. node
local _, stale = open_log(log, record)
if stale then
  return stale
end
local now, seconds, micros = clock()
hub.now = now
local head = seconds .. ' ' .. micros
if epoch == hub.epoch then
  head = head .. '   \n'
else
  head = head .. ' ' .. hub.epoch .. ' ' .. now - redis.call('HGET', log, 'began') .. ' \n'
end
if hub.field then
  local last, this = tonumber(string.match(hub.field, '^%d+')), tonumber(number)
  if last == this then
    return head .. string.match(hub.field, '\n(.*)$')
  elseif last > this then
    return redis.error_reply('OLDBATCH a newer batch of this node was carried out')
  end
end
if epoch ~= hub.epoch and epoch ~= '' then
  return head
end
bounds.topic, bounds.hub = tonumber(topic_bytes), tonumber(hub_bytes)
hub.messages, hub.life, hub.tail_life = messages, life, tail_life

-- The first write of a script decides whether it may write when memory is short: only one that frees memory may.
local full = false
if MIXED then
  local noted = redis.pcall('HSET', log, 'state', hub.state)
  full = type(noted) == 'table' and noted.err ~= nil
  if full then
    redis.call('HDEL', log, 'none')
  end
end

-- Carries all operations out and stores the outcomes, the state and the number of the batch. Returns the packed
-- outcomes; nothing where the server refused to write.
local function carry_out_all()
  local outcomes, key, argument = {}, FIRST_OPERATION_KEY, FIRST_OPERATION
  while argument <= LAST_OPERATION do
    local name, deadline = ARGV[argument], ARGV[argument + 1]
    local last_key = key + ARGV[argument + 2] - 1
    local first = argument + 4
    local last = first + ARGV[argument + 3] - 1
    local kind, answer = DONE, false
    if tonumber(deadline) < now then
      kind = EXPIRED
    elseif full and string.find(GROWING, ' ' .. name .. ' ', 1, true) then
      kind = FULL
    else
      local done
      done, answer = pcall(operations[name], KEYS, ARGV, key, last_key, first, last)
      if not done then
        kind, answer = FAILED, type(answer) == 'table' and answer.err or tostring(answer)
        if string.find(answer, 'OOM command not allowed', 1, true) then
          return
        end
      end
    end
    outcomes[#outcomes + 1] = kind
    outcomes[#outcomes + 1] = answer or false
    argument, key = last + 1, last_key + 1
  end
  local packed = cmsgpack.pack(outcomes)
  local state = struct.pack(STATE, hub.offset, hub.bytes, hub.slice, hub.slice_from, hub.slice_ends, hub.slice_full, hub.kept, hub.swept)
  local stored = redis.pcall('HSET', log, 'state', state, record, number .. ' ' .. seconds .. '\n' .. packed)
  return (type(stored) ~= 'table' or not stored.err) and packed
end

local packed = carry_out_all()
if not packed then
  -- The server has refused this script's first write, so nothing is written yet.
  full, pushes = true, {}
  read_state(hub.state)
  redis.call('HDEL', log, 'none')
  packed = carry_out_all()
end
publish_all()
return head .. packed
