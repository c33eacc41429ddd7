-- Lists some parked connections.
-- KEYS
--   parked      parked connections
--   members     connections of a group or user; without it all connections count
-- ARGV
--   cursor
--   count       about how many connections are looked at
-- Returns the next cursor, and connections.
local found = redis.call('ZSCAN', parked, cursor, 'COUNT', count)
local ids = {}
for index = 1, #found[2], 2 do
  local id = found[2][index]
  if not members or redis.call('ZSCORE', members, id) then
    ids[#ids + 1] = id
  end
end
return {found[1], ids}
