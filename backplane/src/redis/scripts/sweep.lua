-- Forgets what is too old or too much, also where nothing is appended.
-- KEYS: 1 log
-- ARGV: 1 life of the streams (milliseconds), 2 most topics that are looked at
-- Returns how many slices wait to be swept.
local life = tonumber(ARGV[1])
if hub.slice > 0 and hub.now >= hub.slice_ends and hub.slice_from < hub.offset then
  begin_slice(hub.now, life)
end
forget_slices(hub.now, life)
sweep(tonumber(ARGV[2]))
return hub.kept - hub.swept
