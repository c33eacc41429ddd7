-- Assigns events of nodes that are gone to another node.
-- KEYS
--   stream      stream of events
-- ARGV
--   node
--   most        most events of each
--   gone…       nodes that are gone
-- Returns how many events it has got.
local count = 0
for index = FIRST_GONE, LAST_GONE do
  local gone = ARGV[index]
  local pending = redis.pcall('XPENDING', stream, DELIVERY, '-', '+', most, gone)
  if not pending.err then
    if #pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', stream, DELIVERY, gone)
    end
    for _, entry in ipairs(pending) do
      redis.call('XCLAIM', stream, DELIVERY, node, 0, entry[1], 'JUSTID')
    end
    count = count + #pending
  end
end
return count
