-- Sets or clears the state of a connection in a group that it is in, and announces that.
-- KEYS
--   connection
--   request        the request where it may be repeated
-- ARGV
--   owner          node
--   id             connection id
--   group
--   state          `s` and the state in JSON, or nothing to clear it
--   again          `1` to leave the same state as it is
--   most           most bytes of the group's states
--   group_prefix   key of a group without its name
--   request_life   life of the request (milliseconds)
-- Returns the offset of the announcement; 0 where nothing changed, -1 where the request was carried out before, -2 where
-- the connection is not in the group, -3 where the group has no room; nothing where the connection is not the node's.
if redis.call('HGET', connection, 'node') ~= owner then
  return false
end
if request and redis.call('EXISTS', request) == 1 then
  return -1
end
if is_reserved(group) or not redis.call('ZSCORE', group_prefix .. group, id) then
  return -2
end
local member = {id = id, connection = connection, group_prefix = group_prefix}
local text = state ~= '' and string.sub(state, 2)
if again == '1' then
  local held = redis.call('HGET', hub.base .. 'states:' .. group, id)
  if held and text and string.find(held, ',"state":' .. text .. ',"updatedAt":', 1, true) then
    return 0
  end
end
local item = state_item(member, text)
local stored = store_state(member, group, text and item, most)
if text and not stored then
  return -3
end
if request then
  redis.call('SET', request, '', 'PX', request_life)
end
return stored and announce_state(member, group, item) or 0
