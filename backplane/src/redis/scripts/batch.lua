-- Carries out changes of a hub, in order. Each is a function of `operations`, which stands before this text: a script file with
-- its own KEYS and ARGV.
-- KEYS: 1 log, 2… the keys of each operation in turn
-- ARGV: 1 node, 2 number of the batch, 3 bytes that are kept of a topic, 4 of the hub; for each operation: name, deadline in the server's time (milliseconds), number of
--       keys, number of arguments, arguments
-- Returns the server's time, the log's epoch, for how long it has lasted (milliseconds), then for each operation its outcome
-- and its answer or the text of its error.
-- The log keeps the number and the answers of each node's last batch. So a batch whose answer was lost can be sent again:
-- it is carried out once. One that arrives late, after a newer one or past its deadlines, is not carried out at all.
local DONE, FAILED, EXPIRED, FULL = 0, 1, 2, 3
-- Operations that make the data grow. They are refused where the server has no memory left; all others still work.
local GROWING = {claim = true, enter = true, join = true, list = true, publish = true, publish_direct = true, publish_once = true, user_join = true}

local last, answers = 's:' .. ARGV[1], 'a:' .. ARGV[1]
local log, stale = open_log(KEYS[1], last)
if stale then
  return stale
end
local now = clock()
log.now = now
bounds.topic, bounds.hub = tonumber(ARGV[3]), tonumber(ARGV[4])
local number, known = tonumber(ARGV[2]), tonumber(log.field or 0)
if known == number then
  return {now, log.epoch, now - log.began, unpack(cmsgpack.unpack(redis.call('HGET', KEYS[1], answers)))}
elseif known > number then
  return redis.error_reply('OLDBATCH a newer batch of this node was carried out')
end

-- The first write of a script decides whether it may write when memory is short: only one that frees memory may.
local noted = redis.pcall('HSET', KEYS[1], last, ARGV[2])
local full = type(noted) == 'table' and noted.err ~= nil
if full then
  redis.call('HDEL', KEYS[1], answers)
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
local key, argument = 2, 5
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

local state = {last, ARGV[2], answers, cmsgpack.pack(outcomes)}
for _, name in ipairs(FIELDS) do
  state[#state + 1] = name
  state[#state + 1] = string.format('%.0f', hub[name])
end
redis.call('HSET', KEYS[1], unpack(state))
return {now, log.epoch, now - log.began, unpack(outcomes)}
