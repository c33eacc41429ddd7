-- Follows `append.lua` and `reading.lua` in the script of all changes: groups and their members, presence, and the states of members.

-- Bytes as a field of a protobuf message.
local function field(number, bytes)
  local head, length = string.char(number * 8 + 2), #bytes
  while length > 127 do
    head = head .. string.char(length % 128 + 128)
    length = math.floor(length / 128)
  end
  return head .. string.char(length) .. bytes
end

-- A stored name as JSON. `stored.rs` writes control characters as \2 and two hexadecimal digits.
local function quoted(name)
  return '"' .. string.gsub(string.gsub(name, '["\\]', '\\%0'), '\2', '\\u00') .. '"'
end

-- Whether a group is the server's own.
local function is_reserved(group)
  return string.byte(group) == 1
end

-- Pushes the entry that was appended last to a second channel, too.
local function push_also(channel)
  local push = pushes[#pushes]
  pushes[#pushes + 1] = channel
  pushes[#pushes + 1] = push
end

-- The functions below take a table, `member`, with these fields: the `id` of a connection, its key `connection`, the key
-- `group_names` of the groups that have connections, `group_prefix`, which is the key of a group without its name, and
-- `presence`.

-- Appends a message of the backplane's own to a reserved group. `settings` has the fields `messages`, the most messages
-- that are kept, `life` of the stream and `tail_life` in milliseconds, and `keeps_unread`: `1` where messages are kept
-- also for topics without members. Returns the offset.
local function append_own(member, group, target, argument, settings)
  local topic = 'g:' .. group
  local entry = field(1, field(1, target) .. field(2, argument))
  local members = settings.keeps_unread ~= '1' and member.group_prefix .. group
  hub.life, hub.tail_life = settings.life, settings.tail_life -- a node that cleans up need not serve the hub
  local _, offset = append(topic, hub.base .. 'topic:' .. topic, entry, settings.messages, members)
  return offset
end

-- Appends the presence message of a join or leave to the group's watchers: `presence.rs` has the rules and the same
-- message. `presence` is false where the hub has none, else the settings of `append_own`.
local function announce(member, event, group)
  local presence = member.presence
  if not presence or is_reserved(group) then
    return
  end
  local object = '{"event":"' .. event .. '","group":' .. quoted(group) .. ',"connectionId":' .. quoted(member.id)
  local user = redis.call('HGET', member.connection, 'user')
  if user and user ~= '' then
    object = object .. ',"userId":' .. quoted(user)
  end
  append_own(member, '\1' .. group, 'presence', object .. '}', presence)
end

-- The state of a member in a group as its item in JSON, or that it has none any more: `group_states.rs` writes the same.
local function state_item(member, state)
  local item = '{"connectionId":' .. quoted(member.id)
  local user = redis.call('HGET', member.connection, 'user')
  if user and user ~= '' then
    item = item .. ',"userId":' .. quoted(user)
  end
  if state then
    item = item .. ',"state":' .. state
  end
  return item .. ',"updatedAt":' .. string.format('%.0f', hub.now) .. '}'
end

-- Appends the message about a member's new item to the receivers of its group's states. Returns the offset.
local function announce_state(member, group, item)
  local stored = redis.call('HGET', hub.log, 'states') or ''
  local messages, life, tail_life, keeps_unread = string.match(stored, '(%d+)\n(%d+)\n(%d+)\n(%d)$')
  local settings = {
    messages = messages or '0', life = life or hub.life, tail_life = tail_life or hub.tail_life, keeps_unread = keeps_unread
  }
  return append_own(member, '\1\3' .. group, 'groupState', '[' .. item .. ']', settings)
end

-- Changes the item of a member in the hash of its group's states, whose field without a name has the bytes of them all.
-- `item`: nothing deletes it. `most`: bytes of all, or nothing where that does not matter. Returns whether it was changed:
-- there was something to delete, or there is room.
local function store_state(member, group, item, most)
  local states = hub.base .. 'states:' .. group
  local before = redis.call('HSTRLEN', states, member.id)
  if not item then
    if before == 0 then
      return false
    end
    redis.call('HDEL', states, member.id)
    if redis.call('HINCRBY', states, '', -before) <= 0 then
      redis.call('DEL', states)
    end
    return true
  end
  if tonumber(redis.call('HGET', states, '') or 0) - before + #item > tonumber(most) then
    return false
  end
  redis.call('HSET', states, member.id, item)
  redis.call('HINCRBY', states, '', #item - before)
  return true
end

-- Counts such a topic. Returns whether there are not too many in this second: groups that come and go without pause
-- must not fill the server.
local function may_await()
  local key = hub.log .. ':awaited:' .. redis.call('TIME')[1]
  local count = redis.call('INCR', key)
  if count == 1 then
    redis.call('PEXPIRE', key, 5000)
  end
  return count <= AWAITED
end

-- Records that a topic has lost its last member: connections that left may come back for entries from now on.
local function note_left(topic)
  local life = rare().life_of_tail(redis.call('HGET', hub.log, 'tails') or 600000)
  local tail = hub.base .. 'tail:' .. topic
  local known = redis.call('GET', tail)
  if known and string.sub(known, -1) ~= '-' then
    redis.call('PEXPIRE', tail, life)
  elseif may_await() then
    redis.call('SET', tail, string.match(known or '0', '^%d+') .. ' 0', 'PX', life)
  end
end

-- Lists a connection as a member of a group, and the group as one that has connections. The members of groups and users
-- are sorted sets without scores: pages of them are read in the order of their ids.
local function list_member(member, group)
  if redis.call('ZADD', member.group_prefix .. group, 0, member.id) == 0 then
    return
  end
  if not is_reserved(group) then
    redis.call('SADD', member.group_names, group)
  end
  announce(member, 'join', group)
end

-- The reverse of `list_member`.
local function unlist_member(member, group)
  local members = member.group_prefix .. group
  if redis.call('ZREM', members, member.id) == 0 then
    return
  end
  if redis.call('EXISTS', members) == 0 then
    redis.call('SREM', member.group_names, group)
    note_left('g:' .. group)
  end
  if store_state(member, group) then
    announce_state(member, group, state_item(member))
  end
  announce(member, 'leave', group)
end

-- Takes a connection out of some of its groups, which are in the set `groups`. Returns the number of groups that are left.
local function unlist_some(member, groups, most)
  for _, group in ipairs(redis.call('SPOP', groups, most)) do
    unlist_member(member, group)
  end
  return redis.call('SCARD', groups)
end

-- Whether a connection's version in the directory is older than the one in which a node owns it: of two nodes that both
-- take themselves for the owner, the one with the higher version took it over later. A node need not know its version.
local function is_older(known, version)
  return version ~= '' and tonumber(known or 0) < tonumber(version)
end
