-- Removes up to 500 slices of the caller's.
-- ARGV  incarnation, lease in ms
-- Gives 'ok', or 'more' if there may be others.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
if call('SISMEMBER', P .. 'keys:' .. INC, ':') == 0 then
  -- Which they are is lost.
  slow().bury({ INC })
  slow().look_through_all()
  error(LOST)
end
local keys = call('SPOP', P .. 'keys:' .. INC, 500)
wrote = #keys > 0
for i = 1, #keys do
  if keys[i] ~= ':' then slow().remove_slice(keys[i], INC) end
end
call('SADD', P .. 'keys:' .. INC, ':')
return { #keys == 500 and 'more' or 'ok' }
