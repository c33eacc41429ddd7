-- Publishes a message to all, a group or a user.
-- ARGV: 1 topic, 2 entry, 3 `1` where it is kept only if a connection could come back for it
-- Returns the offset.
local topic, members = ARGV[1], false
if ARGV[3] == '1' then
  members = hub.base .. (string.byte(topic) == 103 and 'group:' or 'user:') .. string.sub(topic, 3) -- 103: g
end
local _, offset = append(hub.base .. 'stream:' .. topic, hub.base .. 'tail:' .. topic, hub.base .. 'topic:' .. topic, topic,
  ARGV[2], hub.messages, hub.life, hub.tail_life, nil, members)
return offset
