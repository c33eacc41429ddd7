-- Removes a connection: the directory does not have it any more, and a tombstone refuses its id. It is taken out of
-- some of its groups at once; where there are more, it stays listed in them until `unlist` was called often enough.
-- KEYS: 1 connection, 2 groups of the connection, 3 connections of the node, 4 tombstone, 5 stream,
--       6 tail of the connection's topic, 7 calls of the connection, 8 parked connections,
--       9 groups that have connections, 10 connections that are still listed, 11 end records
-- ARGV: 1 node that must own it, or nothing for a parked one, 2 connection id, 3 life of the tombstone (milliseconds),
--       4 name of this removal, 5 key of a group without its name, 6 key of a user without its id,
--       7 presence, as `announce` takes it, 8 most groups, 9 `1` where a parked one's time need not be up,
--       10 epoch in which the server knows the owner's connections, or nothing, or `*` for all epochs,
--       11 `1` to write an end record, 12 node that reports the end or nothing, 13 its report,
--       14 version in which the owner has it, or nothing, 15 events, as `append_event` takes them,
--       16 node that the event is assigned to, 17 reason in the event; nothing: the one for which it was parked,
--       18 what the owner knows of its events, for where the server forgot it: the part that their ids share, or nothing,
--       19 user, 20 payload, 21 state
-- Returns 1, user, state and number of groups left where this call, or an earlier one of the same name, removed the
-- connection; else 0.
local found = redis.call('HMGET', KEYS[1], 'node', 'user', 'state', 'version')
local closed = redis.call('GET', KEYS[4])
if closed and string.sub(closed, 1, #ARGV[4]) == ARGV[4] then
  local user, marked = string.match(string.sub(closed, #ARGV[4] + 1), '^([^\n]*)\n(.*)$')
  return {1, user or '', marked and marked ~= '' and string.sub(marked, 2) or false, redis.call('SCARD', KEYS[2])}
end
-- As in `register.lua`, the server may have gone back to a state before the owner took it over.
local refused = closed or (found[1] and found[1] ~= ARGV[1] and not is_older(found[4], ARGV[14]))
if not refused and not found[1] then
  -- An owner may remove a connection that the server forgot. But another node has removed it already where the server
  -- knew it in this epoch, or where other nodes took the owner for dead.
  refused = ARGV[1] == '' or ARGV[10] == '*' or ARGV[10] == hub.epoch
  if refused and ARGV[10] == hub.epoch and redis.call('HGET', hub.log, 'evicted_before') ~= evictions() then
    refused = false -- the server may have deleted it to make room
  end
end
if not refused and ARGV[1] == '' then
  -- The connection may have been taken over and parked again since its time was up.
  local waits = redis.call('ZSCORE', KEYS[8], ARGV[2])
  refused = not waits or (ARGV[9] ~= '1' and tonumber(waits) > clock())
end
if refused then
  if ARGV[1] ~= '' then
    redis.call('SREM', KEYS[3], ARGV[2]) -- a parked one may be the caller's by now
  end
  if not found[1] then
    redis.call('ZREM', KEYS[8], ARGV[2])
  end
  return {0, '', false, 0}
end
local user, state = found[2] or '', found[3] and 's' .. found[3] or ''
local event = ARGV[15] ~= '' and redis.call('HMGET', KEYS[1], 'event', 'event_at', 'payload', 'held', 'parked_for')
if event and not found[1] and ARGV[18] ~= '' then
  event = {ARGV[18], '', ARGV[20], ARGV[21], ''}
end
if event and event[1] then
  append_event(ARGV[15], ARGV[16], 'id', event[1] .. '-disconnected', 'type', 'disconnected', 'connection', ARGV[2],
    'user', found[1] and user or ARGV[19], 'payload', event[3], 'state', event[4],
    'reason', ARGV[17] ~= '' and ARGV[17] or event[5] or '', 'connected', event[2])
end
local left = unlist_some(KEYS[9], KEYS[2], ARGV[5], KEYS[1], ARGV[2], ARGV[7], ARGV[8])
if user ~= '' and redis.call('ZREM', ARGV[6] .. user, ARGV[2]) == 1 and redis.call('EXISTS', ARGV[6] .. user) == 0 then
  note_left('u:' .. user)
end
redis.call('SREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[8], ARGV[2])
redis.call('DEL', KEYS[1], KEYS[5], KEYS[6], KEYS[7])
local life = tonumber(ARGV[3])
if left > 0 then
  life = math.max(life, 60000) -- the id stays refused while it is still listed
  redis.call('HSET', KEYS[1], 'user', user)
  redis.call('ZADD', KEYS[10], clock() + 10000, ARGV[2])
end
if life > 0 then
  redis.call('SET', KEYS[4], ARGV[4] .. user .. '\n' .. state, 'PX', life)
end
if ARGV[11] == '1' then
  redis.call('HSET', KEYS[11], ARGV[2], ARGV[12] .. '\n' .. user .. '\n' .. #ARGV[13] .. '\n' .. ARGV[13] .. state)
end
return {1, user, found[3], left}
