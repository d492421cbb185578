-- Removes up to 500 slices of the caller's.
-- ARGV  incarnation, lease in ms
-- Gives 'ok', or 'more' if there may be others.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
local keys = call('SPOP', P .. 'keys:' .. INC, 500)
wrote = #keys > 0
for i = 1, #keys do slow().remove_slice(keys[i], INC) end
return { #keys == 500 and 'more' or 'ok' }
