-- One page of a hash, for a listing. Writes nothing.
-- KEYS[1]  the hash
-- ARGV     where the page begins; the run of the server that gave that place, or ''; about how many fields; a pattern
-- Gives the run of this server, or '' if it may not be asked for; where the next page begins, or '0'; fields and
-- values by turns.
-- A place means something to the run that gave it only, whose hashes have a seed of their own. After a restart, a
-- failover or a move of the slot, the scan begins anew, so that it leaves nothing out.
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local from = ARGV[2] == run and ARGV[1] or '0'
local page = redis.pcall('HSCAN', KEYS[1], from, 'MATCH', ARGV[4], 'COUNT', ARGV[3])
if page.err then
  if string.find(page.err, 'WRONGTYPE', 1, true) then return redis.error_reply('FOREIGN 1') end
  return page
end
return { run, page[1], page[2] }
