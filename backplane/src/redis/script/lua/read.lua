-- Reads several topics: each of them after an offset of its own, all of them up to one offset.
-- KEYS: 1 log, then for each topic: tail, stream
-- ARGV: 1 last offset, or `+`, 2 about how many bytes are read of each topic, 3 life of a tail (milliseconds),
--       4… the offset after which each topic is read
-- Returns epoch, the hub's last offset, the offset up to which tails may be unknown, the offset up to which these
-- topics were read, then for each topic: its newest offset or 0, the predecessor that its first entry names or nothing
-- where there is none, entries.
local log, stale = open_log(KEYS[1])
if stale then
  return stale
end
local most = tonumber(ARGV[2])
local reached = math.min(tonumber(ARGV[1]) or log.offset, log.offset)

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

local answer = {log.epoch, log.offset, forgotten(KEYS[1], ARGV[3]), 0}
for index = 4, #ARGV do
  local key = 2 * (index - 3)
  local tail = tonumber(string.match(redis.call('GET', KEYS[key]) or '0', '^%d+'))
  answer[#answer + 1] = tail
  local first, entries = read(KEYS[key + 1], tonumber(ARGV[index]))
  answer[#answer + 1] = first
  answer[#answer + 1] = entries
end
answer[4] = reached
return answer
