-- Reads one topic.
-- KEYS: 1 log, 2 tail, 3 stream
-- ARGV: 1 first offset, 2 most entries, 3 life of a tail (milliseconds)
-- Returns epoch, the hub's last offset, the offset up to which tails may be unknown, the topic's newest offset or 0,
-- entries.
local log, stale = open_log(KEYS[1])
if stale then
  return stale
end
local tail = tonumber(string.match(redis.call('GET', KEYS[2]) or '0', '^%d+'))
local entries = redis.call('XRANGE', KEYS[3], ARGV[1], '+', 'COUNT', ARGV[2])
return {log.epoch, log.offset, forgotten(KEYS[1], ARGV[3]), tail, entries}
