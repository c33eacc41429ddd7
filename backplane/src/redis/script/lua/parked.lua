-- Lists some parked connections.
-- KEYS: 1 parked connections, 2 connections of a group or user; without it all connections count
-- ARGV: 1 cursor, 2 about how many connections are looked at
-- Returns the next cursor, and connections.
local found = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local ids = {}
for index = 1, #found[2], 2 do
  local id = found[2][index]
  if not KEYS[2] or redis.call('ZSCORE', KEYS[2], id) then
    ids[#ids + 1] = id
  end
end
return {found[1], ids}
