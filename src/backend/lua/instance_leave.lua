-- Ends a membership and removes up to 500 of its slices; what it does not reach is collected as a dead
-- instance's is.
-- ARGV  incarnation
-- Gives 'ok', or 'more' if there are others.
if not read_meta() then return { 'ok' } end
-- The set may be lost; who has a lease's key has not been buried.
if call('ZSCORE', LEASES, ARGV[1]) or call('EXISTS', P .. 'lease:' .. ARGV[1]) == 1 then slow().bury({ ARGV[1] }) end
if not call('ZSCORE', P .. 'dead', ARGV[1]) then return { 'ok' } end
local _, done = slow().sweep_one(ARGV[1], 500)
return { done and 'ok' or 'more' }
