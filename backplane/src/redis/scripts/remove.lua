-- Removes a connection from the directory and from every set, and leaves a tombstone.
-- KEYS: 1 connection, 2 groups of the connection, 3 connections of the node, 4 tombstone, 5 stream, 6 tail of the
--       connection's topic, 7 calls of the connection, 8 parked connections, 9 groups that have connections
-- ARGV: 1 node that must own it, or nothing for a parked one, 2 connection id, 3 life of the tombstone (milliseconds),
--       4 name of this removal, 5 key of a group without its name, 6 key of a user without its id, 7 `1` where a
--       repetition of this call must answer the same, 8 presence, as `announce` takes it, 9 `1` where a parked one's
--       time need not be up
-- Returns 1, user and state where this call, or an earlier one of the same name, removed the connection; else 0.
-- An owner may remove what the server forgot in a restart: only a tombstone says that somebody was faster.
local found = redis.call('HMGET', KEYS[1], 'node', 'user', 'state')
local closed = redis.call('GET', KEYS[4])
if closed and string.sub(closed, 1, #ARGV[4]) == ARGV[4] then
  local user, marked = string.match(string.sub(closed, #ARGV[4] + 1), '^([^\n]*)\n(.*)$')
  return {1, user or '', marked and marked ~= '' and string.sub(marked, 2) or false}
end
local refused = closed or (found[1] and found[1] ~= ARGV[1])
if ARGV[1] == '' and not refused then
  -- It may have been taken over and parked again since its time was up.
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local waits = redis.call('ZSCORE', KEYS[8], ARGV[2])
  refused = not found[1] or not waits or (ARGV[9] ~= '1' and tonumber(waits) > now)
end
if refused then
  if ARGV[1] ~= '' then
    redis.call('SREM', KEYS[3], ARGV[2]) -- a parked one may be the caller's by now
  end
  if not found[1] then
    redis.call('ZREM', KEYS[8], ARGV[2])
  end
  return {0, '', false}
end
for _, group in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  unlist_member(KEYS[9], ARGV[5] .. group, group, KEYS[1], ARGV[2], ARGV[8])
end
local user = found[2] or ''
if user ~= '' then
  redis.call('ZREM', ARGV[6] .. user, ARGV[2])
end
redis.call('SREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[8], ARGV[2])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[5], KEYS[6], KEYS[7])
if tonumber(ARGV[3]) > 0 then
  local told = ARGV[7] == '1' and (user .. '\n' .. (found[3] and 's' .. found[3] or '')) or ''
  redis.call('SET', KEYS[4], ARGV[4] .. told, 'PX', ARGV[3])
end
return {1, user, found[3]}
