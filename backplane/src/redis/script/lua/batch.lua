-- Carries out changes of a hub, in order. Each is a function of `operations`, which stands before this text: a script
-- file with its own KEYS and ARGV. `MIXED` is set where some of them free memory.
-- KEYS: 1 log, 2… the keys of each operation in turn
-- ARGV: 1 node, 2 number of the batch, 3 the log's epoch as the node knows it, or nothing, 4 bytes that are kept of a
--       topic, 5 of the hub, 6 most messages that are kept of a topic, 7 life of the streams, 8 life of a tail
--       (milliseconds); for each operation: name, deadline in the server's time (milliseconds), number of keys, number
--       of arguments, arguments
-- Returns the server's time in seconds and microseconds, the log's epoch and for how long it has lasted (milliseconds),
-- or nothing for both where the node knows the epoch, each with a space behind it and all in one line; then, packed, for
-- each operation its outcome and its answer or the text of its error (`answers.rs`). Where the epoch is another one,
-- nothing is carried out and nothing is packed: the node may have to append gaps first. The number and the answers of
-- each node's last batch are kept. So a batch whose answer was lost can be sent again: it is carried out once. A batch
-- that arrives after a newer one, or past its deadlines, is not carried out at all.
local DONE, FAILED, EXPIRED, FULL = 0, 1, 2, 3
-- Operations that make the data grow. They are refused where the server has no memory left; all others still work.
local GROWING = ' claim enter join list publish publish_direct publish_once user_join '

local NONE = {}

local record = 'batch:' .. ARGV[1]
local log, stale = open_log(KEYS[1], record)
if stale then
  return stale
end
local now, seconds, micros = clock()
log.now = now
local head = seconds .. ' ' .. micros
if ARGV[3] == log.epoch then
  head = head .. '   \n'
else
  head = head .. ' ' .. log.epoch .. ' ' .. now - redis.call('HGET', KEYS[1], 'began') .. ' \n'
end
if log.field then
  local last, answers = string.match(log.field, '^(%d+) %d+\n(.*)$')
  if last == ARGV[2] then
    return head .. answers
  elseif tonumber(last) > tonumber(ARGV[2]) then
    return redis.error_reply('OLDBATCH a newer batch of this node was carried out')
  end
end
if ARGV[3] ~= log.epoch and ARGV[3] ~= '' then
  return head
end
bounds.topic, bounds.hub = tonumber(ARGV[4]), tonumber(ARGV[5])
log.messages, log.life, log.tail_life = ARGV[6], ARGV[7], ARGV[8]

-- The first write of a script decides whether it may write when memory is short: only one that frees memory may.
local full = false
if MIXED then
  local noted = redis.pcall('HSET', KEYS[1], 'state', log.state)
  full = type(noted) == 'table' and noted.err ~= nil
  if full then
    redis.call('HDEL', KEYS[1], 'none')
  end
end

-- Carries all operations out and stores the outcomes, the state and the number of the batch. Returns the packed
-- outcomes; nothing where the server refused to write.
local function carry_out_all()
  local outcomes, key, argument = {}, 2, 9
  while argument <= #ARGV do
    local name = ARGV[argument]
    local last_key = key + ARGV[argument + 2] - 1
    local first = argument + 4
    local kind, answer = DONE, false
    if tonumber(ARGV[argument + 1]) < now then
      kind = EXPIRED
    elseif full and string.find(GROWING, ' ' .. name .. ' ', 1, true) then
      kind = FULL
    else
      local done
      done, answer = pcall(operations[name], last_key < key and NONE or {unpack(KEYS, key, last_key)},
        {unpack(ARGV, first, first + ARGV[argument + 3] - 1)})
      if not done then
        kind, answer = FAILED, type(answer) == 'table' and answer.err or tostring(answer)
        if string.find(answer, 'OOM command not allowed', 1, true) then
          return
        end
      end
    end
    outcomes[#outcomes + 1] = kind
    outcomes[#outcomes + 1] = answer or false
    argument = first + ARGV[argument + 3]
    key = last_key + 1
  end
  local packed = cmsgpack.pack(outcomes)
  local state = struct.pack(STATE, hub.offset, hub.bytes, hub.slice, hub.slice_from, hub.slice_ends, hub.slice_full, hub.kept, hub.swept)
  local stored = redis.pcall('HSET', KEYS[1], 'state', state, record, ARGV[2] .. ' ' .. seconds .. '\n' .. packed)
  return (type(stored) ~= 'table' or not stored.err) and packed
end

local packed = carry_out_all()
if not packed then
  -- The server has refused this script's first write, so nothing is written yet.
  full, pushes = true, {}
  read_state(log.state)
  redis.call('HDEL', KEYS[1], 'none')
  packed = carry_out_all()
end
publish_all()
return head .. packed
