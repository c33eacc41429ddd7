-- Publishes the next one of a sender's numbered messages, to all, a group or a user. Its arguments begin as those of
-- `publish`, which it passes on.
-- KEYS
--   counted       count of the messages
-- ARGV
--   topic
--   entry
--   only_wanted   `1` where it is kept only if a connection could come back for it
--   number        number of the message
--   next_number   number of the one behind it
--   last          nothing, or the text with which it is the last one
--   life          life of the count (milliseconds)
-- Returns the offset; where nothing was published, what `count` returns, or nothing.
local known = redis.call('GET', counted)
if known ~= number then
  return known
end
redis.call('SET', counted, last == '' and next_number or number .. ' ' .. last, 'PX', life)
return {operations.publish(KEYS, ARGV, key, last_key, argument, last_argument)}
