-- Stores a checkpoint of a client.
-- KEYS: 1 connection
-- ARGV: 1 node, 2 version, 3 epoch, 4 number, 5 offset
-- Returns whether the node owns the connection in that version and it is resumable.
local known = redis.call('HMGET', KEYS[1], 'node', 'version', 'epoch')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or not known[3] then
  return 0
end
rare().write_checkpoint(KEYS[1], ARGV[3], ARGV[4], ARGV[5])
return 1
