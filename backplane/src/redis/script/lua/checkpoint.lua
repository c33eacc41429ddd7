-- Stores a checkpoint of a client.
-- KEYS
--   connection
-- ARGV
--   node
--   version
--   epoch       the checkpoint: epoch,
--   sequence    number of the last message that the client has,
--   offset      and its offset
-- Returns whether the node owns the connection in that version and it is resumable.
local known = redis.call('HMGET', connection, 'node', 'version', 'epoch')
if known[1] ~= node or known[2] ~= version or not known[3] then
  return 0
end
rare().write_checkpoint(connection, epoch, sequence, offset)
return 1
