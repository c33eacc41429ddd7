-- Begins a new epoch of a log that was last used in another run of the server, or stored in an earlier form. The caller
-- has just made sure that the server is in this run.
-- KEYS
--   log
-- ARGV
--   run         the run that the log names, as the caller has found it
-- Returns whether this call began the epoch: another node may have been faster.
local known = redis.call('HMGET', log, 'run', 'state', 'offset')
if known[1] ~= run or rare().is_same_run(known[1]) then
  return 0
end
local state, start = known[2], known[3]
if state then
  start = struct.unpack('<d', state)
end
rare().begin_epoch(log, start, state)
return 1
