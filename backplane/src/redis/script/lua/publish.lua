-- Publishes a message to all, a group or a user.
-- KEYS
-- ARGV
--   topic
--   entry
--   only_wanted   `1` where it is kept only if a connection could come back for it
-- Returns the offset.
local members = false
if only_wanted == '1' then
  members = hub.base .. (string.byte(topic) == 103 and 'group:' or 'user:') .. string.sub(topic, 3) -- 103: g
end
local _, offset = append(topic, hub.base .. 'topic:' .. topic, entry, hub.messages, members)
return offset
