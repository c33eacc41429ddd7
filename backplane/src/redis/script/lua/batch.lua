-- Carries out changes of a hub, in order. Each is a function of `operations`, which stands before this text: a script
-- file with its own KEYS and ARGV.
-- KEYS: 1 log, 2 record of the node's last batch, 3… the keys of each operation in turn
-- ARGV: 1 node, 2 number of the batch, 3 bytes that are kept of a topic, 4 of the hub, 5 the log's epoch as the node
--       knows it, or nothing; for each operation: name, deadline in the server's time (milliseconds), number of keys,
--       number of arguments, arguments
-- Returns the server's time, the log's epoch, for how long it has lasted (milliseconds), then for each operation its
-- outcome and its answer or the text of its error. Where the epoch is another one, nothing is carried out and there are
-- no outcomes: the node may have to append gaps first. The number and the answers of each node's last batch are kept.
-- So a batch whose answer was lost can be sent again: it is carried out once. A batch that arrives after a newer one,
-- or past its deadlines, is not carried out at all.
local DONE, FAILED, EXPIRED, FULL = 0, 1, 2, 3
-- Operations that make the data grow. They are refused where the server has no memory left; all others still work.
local GROWING = {claim = true, enter = true, join = true, list = true, publish = true, publish_direct = true, publish_once = true, user_join = true}

-- Life of the record (milliseconds): longer than any node repeats a batch.
local LIFE = 3600000

local log, stale = open_log(KEYS[1])
if stale then
  return stale
end
local now = clock()
log.now = now
bounds.topic, bounds.hub = tonumber(ARGV[3]), tonumber(ARGV[4])
local number, last, answers = tonumber(ARGV[2]), string.match(redis.call('GET', KEYS[2]) or '0\n', '^(%d+)\n(.*)$')
last = tonumber(last)
if last == number then
  return {now, log.epoch, now - log.began, unpack(cmsgpack.unpack(answers))}
elseif last > number then
  return redis.error_reply('OLDBATCH a newer batch of this node was carried out')
elseif ARGV[5] ~= '' and ARGV[5] ~= log.epoch then
  return {now, log.epoch, now - log.began}
end

-- The first write of a script decides whether it may write when memory is short: only one that frees memory may.
local noted = redis.pcall('HSET', KEYS[1], 'bytes', log.bytes)
local full = type(noted) == 'table' and noted.err ~= nil
if full then
  redis.call('HDEL', KEYS[1], 'none')
end

local function carry_out(name, deadline, keys, arguments)
  if deadline < now then
    return {EXPIRED, false}
  end
  if full and GROWING[name] then
    return {FULL, false}
  end
  local done, answer = pcall(operations[name], keys, arguments)
  if done then
    return {DONE, answer}
  end
  return {FAILED, type(answer) == 'table' and answer.err or tostring(answer)}
end

local outcomes = {}
local key, argument = 3, 6
while argument <= #ARGV do
  local name, deadline = ARGV[argument], tonumber(ARGV[argument + 1])
  local last_key = key + ARGV[argument + 2] - 1
  local first = argument + 4
  argument = first + ARGV[argument + 3]
  local keys, arguments = {}, {}
  for index = key, last_key do
    keys[index - key + 1] = KEYS[index]
  end
  for index = first, argument - 1 do
    arguments[index - first + 1] = ARGV[index]
  end
  key = last_key + 1
  outcomes[#outcomes + 1] = carry_out(name, deadline, keys, arguments)
end

redis.call('SET', KEYS[2], ARGV[2] .. '\n' .. cmsgpack.pack(outcomes), 'PX', LIFE)
local state = {}
for _, name in ipairs(FIELDS) do
  state[#state + 1] = name
  state[#state + 1] = string.format('%.0f', hub[name])
end
redis.call('HSET', KEYS[1], unpack(state))
return {now, log.epoch, now - log.began, unpack(outcomes)}
