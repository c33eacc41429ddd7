-- Forgets slices that are too old or too much, also where no entry is appended, and notices soon when the server has
-- deleted keys, so that entries after that count as complete.
-- KEYS: 1 log
-- ARGV: 1 life of the streams (milliseconds), 2 most topics that are looked at, 3 life of a tail (milliseconds)
-- Returns how many slices wait to be swept.
local life = tonumber(ARGV[1])
forgotten(KEYS[1], ARGV[3])
if hub.slice > 0 and hub.now >= hub.slice_ends and hub.slice_from < hub.offset then
  begin_slice(hub.now, life)
end
forget_slices(hub.now, life)
sweep(tonumber(ARGV[2]))
return hub.kept - hub.swept
