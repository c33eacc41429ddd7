-- Reads several topics: each of them after an offset of its own, all of them up to one offset.
-- KEYS
--   log
--   tail… stream…   of each topic
-- ARGV
--   upto            last offset, or `+`
--   most_bytes      about how many bytes are read of each topic
--   tail_life       life of a tail (milliseconds)
--   after…          the offset after which each topic is read
-- Returns epoch, the hub's last offset, the offset up to which tails may be unknown, the offset up to which these
-- topics were read, then for each topic: its newest offset or 0, the predecessor that its first entry names or nothing
-- where there is none, entries.
local _, stale = open_log(log)
if stale then
  return stale
end
local most = tonumber(most_bytes)
local reached = math.min(tonumber(upto) or hub.offset, hub.offset)

-- Reads one entry at first: its size shows how many fit.
local function read(stream, after)
  local found = redis.call('XRANGE', stream, string.format('%.0f', after + 1), '+', 'COUNT', 1)
  local first, entries, bytes = found[1] and found[1][2][2] or false, {}, 0
  while found[1] do
    for _, entry in ipairs(found) do
      after = tonumber(string.match(entry[1], '^%d+'))
      if after > reached then
        return first, entries
      end
      entries[#entries + 1] = entry
      bytes = bytes + #entry[2][4]
    end
    if bytes >= most then
      reached = after
      break
    end
    local fit = math.ceil((most - bytes) / math.max(64, bytes / #entries))
    found = redis.call('XRANGE', stream, string.format('%.0f', after + 1), string.format('%.0f', reached),
      'COUNT', math.min(fit, 500))
  end
  return first, entries
end

local answer, key = {hub.epoch, hub.offset, forgotten(log, tail_life), 0}, FIRST_TAIL
for index = FIRST_AFTER, LAST_AFTER do
  local tail, stream = KEYS[key], KEYS[key + 1]
  answer[#answer + 1] = tonumber(string.match(redis.call('GET', tail) or '0', '^%d+'))
  local first, entries = read(stream, tonumber(ARGV[index]))
  answer[#answer + 1] = first
  answer[#answer + 1] = entries
  key = key + 2
end
answer[4] = reached
return answer
