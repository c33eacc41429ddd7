-- Removes a connection: the directory does not have it any more, and a tombstone refuses its id. It is taken out of
-- some of its groups at once; where there are more, it stays listed in them until `unlist` was called often enough.
-- KEYS
--   connection
--   groups           groups of the connection
--   owned            connections of the node
--   tombstone
--   stream           stream and
--   tail             tail of the connection's topic
--   calls            calls of the connection
--   parked           parked connections
--   group_names      groups that have connections
--   leaving          connections that are still listed
--   ended            end records
-- ARGV
--   owner            node that must own it, or nothing for a parked one
--   id               connection id
--   tombstone_life   life of the tombstone (milliseconds)
--   removal          name of this removal
--   group_prefix     key of a group without its name
--   user_prefix      key of a user without its id
--   presence {messages, life, tail_life, keeps_unread}   as `announce` has it
--   most             most groups
--   early            `1` where a parked one's time need not be up
--   known_in         epoch in which the server knows the owner's connections, or nothing, or `*` for all epochs
--   reports          `1` to write an end record
--   reporter         node that reports the end or nothing
--   report           its report
--   version          version in which the owner has it, or nothing
--   events {stream, most, deliver}   as `append_event` has it
--   assignee         node that the event is assigned to
--   reason           reason in the event; nothing: the one for which it was parked
--   reported {base, user, payload, state}   what the owner knows of its events, for where the server forgot it, or
--                    nothing: the part that their ids share, user, payload, state
-- Returns 1, user, state and number of groups left where this call, or an earlier one of the same name, removed the
-- connection; else 0.
local found = redis.call('HMGET', connection, 'node', 'user', 'state', 'version')
local closed = redis.call('GET', tombstone)
if closed and string.sub(closed, 1, #removal) == removal then
  local user, marked = string.match(string.sub(closed, #removal + 1), '^([^\n]*)\n(.*)$')
  return {1, user or '', marked and marked ~= '' and string.sub(marked, 2) or false, redis.call('SCARD', groups)}
end
-- As in `register.lua`, the server may have gone back to a state before the owner took it over.
local refused = closed or (found[1] and found[1] ~= owner and not is_older(found[4], version))
if not refused and not found[1] then
  -- An owner may remove a connection that the server forgot. But another node has removed it already where the server
  -- knew it in this epoch, or where other nodes took the owner for dead.
  refused = owner == '' or known_in == '*' or known_in == hub.epoch
  if refused and known_in == hub.epoch and redis.call('HGET', hub.log, 'evicted_before') ~= evictions() then
    refused = false -- the server may have deleted it to make room
  end
end
if not refused and owner == '' then
  -- The connection may have been taken over and parked again since its time was up.
  local waits = redis.call('ZSCORE', parked, id)
  refused = not waits or (early ~= '1' and tonumber(waits) > clock())
end
if refused then
  if owner ~= '' then
    redis.call('SREM', owned, id) -- a parked one may be the caller's by now
  end
  if not found[1] then
    redis.call('ZREM', parked, id)
  end
  return {0, '', false, 0}
end
local user, state = found[2] or '', found[3] and 's' .. found[3] or ''
local event = events and redis.call('HMGET', connection, 'event', 'event_at', 'payload', 'held', 'parked_for')
if event and not found[1] and reported then
  event = {reported.base, '', reported.payload, reported.state, ''}
end
if event and event[1] then
  append_event(events, assignee, 'id', event[1] .. '-disconnected', 'type', 'disconnected', 'connection', id,
    'user', found[1] and user or reported and reported.user or '', 'payload', event[3], 'state', event[4],
    'reason', reason ~= '' and reason or event[5] or '', 'connected', event[2])
end
local member = {
  id = id, connection = connection, group_names = group_names, group_prefix = group_prefix, presence = presence
}
local left = unlist_some(member, groups, most)
if user ~= '' and redis.call('ZREM', user_prefix .. user, id) == 1 and redis.call('EXISTS', user_prefix .. user) == 0 then
  note_left('u:' .. user)
end
redis.call('SREM', owned, id)
redis.call('ZREM', parked, id)
redis.call('DEL', connection, stream, tail, calls)
local life = tonumber(tombstone_life)
if left > 0 then
  life = math.max(life, 60000) -- the id stays refused while it is still listed
  redis.call('HSET', connection, 'user', user)
  redis.call('ZADD', leaving, clock() + 10000, id)
end
if life > 0 then
  redis.call('SET', tombstone, removal .. user .. '\n' .. state, 'PX', life)
end
if reports == '1' then
  redis.call('HSET', ended, id, reporter .. '\n' .. user .. '\n' .. #report .. '\n' .. report .. state)
end
return {1, user, found[3], left}
