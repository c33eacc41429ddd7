-- Lists a connection that has entered in some of the groups that it entered with.
-- KEYS: 1 connection, 2 groups of the connection, 3 groups that have connections
-- ARGV: 1 node, 2 connection id, 3 key of a group without its name, 4 presence, as `announce` takes it, 5… groups
-- Returns whether the node owns the connection.
if redis.call('HGET', KEYS[1], 'node') ~= ARGV[1] then
  return 0
end
for index = 5, #ARGV do
  if redis.call('SADD', KEYS[2], ARGV[index]) == 1 then
    redis.call('HINCRBY', KEYS[1], 'groups', 1)
  end
  list_member(KEYS[3], ARGV[3] .. ARGV[index], ARGV[index], KEYS[1], ARGV[2], ARGV[4])
end
return 1
