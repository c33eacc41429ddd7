-- Follows `append.lua` and `reading.lua` in the script of all changes: groups and their members, and presence.

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

-- Appends the presence message of a join or leave to the group's watchers: `presence.rs` has the rules and the same
-- message. `presence` is false where the hub has none; else its fields are `messages`, the most messages that are kept,
-- `life` of the stream and `tail_life` in milliseconds, and `keeps_unread`: `1` where messages are kept also for topics
-- without members.
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
  local topic = 'g:\1' .. group
  local entry = field(1, field(1, 'presence') .. field(2, object .. '}'))
  local watchers = presence.keeps_unread ~= '1' and member.group_prefix .. '\1' .. group
  hub.life, hub.tail_life = presence.life, presence.tail_life -- a node that cleans up need not serve the hub
  append(topic, hub.base .. 'topic:' .. topic, entry, presence.messages, watchers)
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
