-- Reads the states of a group's members.
-- KEYS
--   log
--   states     states of the group
-- ARGV
-- Returns epoch, the last offset, and the items in JSON.
local _, stale = open_log(log)
if stale then
  return stale
end
local items, held = {}, redis.call('HGETALL', states)
for index = 1, #held, 2 do
  if held[index] ~= '' then
    items[#items + 1] = held[index + 1]
  end
end
return {hub.epoch, hub.offset, '[' .. table.concat(items, ',') .. ']'}
