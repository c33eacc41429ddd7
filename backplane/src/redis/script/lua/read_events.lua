-- Reads unfinished events that are assigned to a node.
-- KEYS
--   stream      stream of events
-- ARGV
--   node
--   after       the place after which they are read
--   most        most events
--   place…      places of events that others wait for
-- Returns the places of the latter that are finished, then events: each its place, its fields, and 1 where the earlier
-- event of its connection is unfinished.
local function is_unfinished(place)
  local pending = redis.pcall('XPENDING', stream, DELIVERY, place, place, 1)
  return not pending.err and #pending > 0
end

local finished = {}
for index = FIRST_PLACE, LAST_PLACE do
  local place = ARGV[index]
  if not is_unfinished(place) then
    finished[#finished + 1] = place
  end
end
local read = redis.pcall('XREADGROUP', 'GROUP', DELIVERY, node, 'COUNT', most, 'STREAMS', stream, after)
local events = {}
if read and not read.err then
  for _, entry in ipairs(read[1][2]) do
    local place, fields = entry[1], entry[2]
    if not fields then
      redis.call('XACK', stream, DELIVERY, place) -- somebody has deleted the entry
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
