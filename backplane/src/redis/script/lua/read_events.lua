-- Reads unfinished events that are assigned to a node.
-- KEYS: 1 stream of events
-- ARGV: 1 node, 2 the place after which they are read, 3 most events, 4… places of events that others wait for
-- Returns the places of the latter that are finished, then events: each its place, its fields, and 1 where the earlier
-- event of its connection is unfinished.
local function is_unfinished(place)
  local pending = redis.pcall('XPENDING', KEYS[1], DELIVERY, place, place, 1)
  return not pending.err and #pending > 0
end

local finished = {}
for index = 4, #ARGV do
  if not is_unfinished(ARGV[index]) then
    finished[#finished + 1] = ARGV[index]
  end
end
local read = redis.pcall('XREADGROUP', 'GROUP', DELIVERY, ARGV[1], 'COUNT', ARGV[3], 'STREAMS', KEYS[1], ARGV[2])
local events = {}
if read and not read.err then
  for _, entry in ipairs(read[1][2]) do
    local place, fields = entry[1], entry[2]
    if not fields then
      redis.call('XACK', KEYS[1], DELIVERY, place) -- somebody has deleted the entry
    else
      local earlier = ''
      for index = 1, #fields, 2 do
        if fields[index] == 'connected' then
          earlier = fields[index + 1]
        end
      end
      events[#events + 1] = {place, fields, earlier ~= '' and is_unfinished(earlier) and 1 or 0}
    end
  end
end
return {finished, events}
