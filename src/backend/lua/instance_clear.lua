-- Gives all keys a new epoch, under which none has a slice. What they held is left to sweeping.
-- ARGV  incarnation, lease in ms
-- Gives 'ok', number of the last death to be swept.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
wrote = true
local epoch = new_epoch()
call('HSET', META, 'floor', epoch, 'base', epoch, 'former', epoch)
call('HDEL', META, 'tombs')
call('UNLINK', P .. 'tombs', P .. 'tombs:old', P .. 'index')
call('DEL', P .. 'quiet')
for _, inc in ipairs(call('ZRANGE', LEASES, 0, -1)) do
  if call('SCARD', P .. 'keys:' .. inc) > 1 then
    deaths = call('HINCRBY', META, 'deaths', 1)
    local index = 'g' .. text(deaths)
    call('RENAME', P .. 'keys:' .. inc, P .. 'keys:' .. index)
    call('SADD', P .. 'keys:' .. inc, ':')
    call('ZADD', P .. 'dead', text(deaths), index)
    call('HSET', META, 'dead', '1')
  end
end
return { 'ok', text(deaths) }
