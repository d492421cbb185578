-- Renews a lease and sweeps; called again and again, it sweeps everything.
-- ARGV  incarnation, lease in ms, number of the last death to be swept, or ''
-- Gives 'ok', or 'more' if some of those deaths are not swept.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
grow_older()
settle()
local lowest = ARGV[3] ~= '' and call('ZRANGE', P .. 'dead', 0, 0, 'WITHSCORES')[2]
return { lowest and tonumber(lowest) <= tonumber(ARGV[3]) and 'more' or 'ok' }
