-- Puts back a further part of the claims of a join. Follows instance_claims.lua.
-- ARGV  incarnation, lease in ms, then the claims
-- Gives 'ok', incarnation, then the claims' standings; or 'notjoined'; or 'again'.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
if backlog and slow().prepare(3, 3) then return { 'again' } end
local out = put_back_all(3, { 'ok', INC }, call('HGET', P .. 'inst:' .. INC, 'late'))
settle()
return out
