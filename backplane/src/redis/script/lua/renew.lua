-- Begins a new epoch of a log that was last used in another run of the server, or stored in an earlier form. The caller
-- has just made sure that the server is in this run.
-- KEYS: 1 log
-- ARGV: 1 the run that the log names, as the caller has found it
-- Returns whether this call began the epoch: another node may have been faster.
local known = redis.call('HMGET', KEYS[1], 'run', 'state', 'offset')
if known[1] ~= ARGV[1] or rare().is_same_run(known[1]) then
  return 0
end
local state, start = known[2], known[3]
if state then
  start = struct.unpack('<d', state)
end
rare().begin_epoch(KEYS[1], start, state)
return 1
