-- How far a hub's log reaches; begins a new epoch where one is due.
-- KEYS: 1 log
-- ARGV: 1 life of a tail (milliseconds)
-- Returns epoch, the last offset of older epochs, the last offset, the offset up to which tails may be unknown.
local epoch = open_log(KEYS[1])
local known = redis.call('HMGET', KEYS[1], 'start', 'offset')
return {epoch, tonumber(known[1] or 0), tonumber(known[2] or 0), forgotten(KEYS[1], ARGV[1])}
