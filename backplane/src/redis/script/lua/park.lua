-- Parks a resumable connection: it has no owner until a node takes it over.
-- KEYS: 1 connection, 2 connections of the owner, 3 parked connections
-- ARGV: 1 owner, 2 version or nothing, 3 connection id, 4 time that it waits (milliseconds), 5 epoch or nothing,
--       6 number, 7 offset of its checkpoint, 8 reason in its event if no node takes it over
-- Returns whether the owner had it in that version, or parked it in that version, and it can be taken over.
local known = redis.call('HMGET', KEYS[1], 'node', 'version', 'epoch', 'parked_by')
if known[1] == '' and ARGV[2] ~= '' and known[2] == ARGV[2] and known[4] == ARGV[1] then
  return 1
end
if known[1] ~= ARGV[1] or (ARGV[2] ~= '' and known[2] ~= ARGV[2]) or not known[3] then
  return 0
end
redis.call('HSET', KEYS[1], 'node', '', 'parked_by', ARGV[1], 'parked_for', ARGV[8])
if ARGV[5] ~= '' then
  rare().write_checkpoint(KEYS[1], ARGV[5], ARGV[6], ARGV[7])
end
redis.call('SREM', KEYS[2], ARGV[3])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[4], ARGV[3])
return 1
