-- Assigns events of nodes that are gone to another node.
-- KEYS: 1 stream of events
-- ARGV: 1 node, 2 most events of each, 3… nodes that are gone
-- Returns how many events it has got.
local count = 0
for index = 3, #ARGV do
  local pending = redis.pcall('XPENDING', KEYS[1], DELIVERY, '-', '+', ARGV[2], ARGV[index])
  if not pending.err then
    if #pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], DELIVERY, ARGV[index])
    end
    for _, entry in ipairs(pending) do
      redis.call('XCLAIM', KEYS[1], DELIVERY, ARGV[1], 0, entry[1], 'JUSTID')
    end
    count = count + #pending
  end
end
return count
