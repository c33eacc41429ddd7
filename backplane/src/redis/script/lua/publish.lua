-- Publishes a message to all, a group or a user.
-- KEYS: 1 log, 2 stream, 3 tail of the topic
-- ARGV: 1 channel, 2 topic, 3 entry, 4 most entries, 5 life of the stream, 6 life of the tail (milliseconds),
--       7 key of its members, as `append` takes it
-- Returns the offset.
local _, offset = append(KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], nil, ARGV[7])
return offset
