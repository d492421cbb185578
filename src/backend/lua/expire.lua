-- Takes away the counters of a space that has been idle for long enough, shortly before the server would: it frees a hash
-- that it expires at once, and stops for as long as that takes, unless it has `lazyfree-lazy-expire yes`. One that is
-- unlinked is freed by another thread.
--
-- KEYS[1]  the totals
-- KEYS[2]  the shape
-- ARGV[1]  how much time they have left, in ms, when they may go: see windows.rs
--
-- What is remembered of writers has its own time, which is no earlier: a batch that is sent again meanwhile is known.
--
-- Answer: in how many ms they may go, if nobody writes; -1 if there are none that expire.
local left, early = redis.call('PTTL', KEYS[1]), tonumber(ARGV[1])
if left < 0 then
  return -1
end
if left > early then
  return left - early
end
local life = redis.pcall('HGET', KEYS[2], 'totals')
if type(life) == 'table' then
  return string.find(life.err, 'WRONGTYPE', 1, true) and { err = 'FOREIGN 2' } or life
end
if redis.acl_check_cmd and not redis.acl_check_cmd('UNLINK', KEYS[1]) then
  return { err = 'NOPERM to expire needs UNLINK on ' .. KEYS[1] }
end
-- Before: they are not lost. The shape is there, so this leaves its time as it is.
if life then
  local noted = redis.pcall('HSET', KEYS[2], 'totals', string.match(life, '^%d*') .. '-')
  if type(noted) == 'table' then
    return noted
  end
end
redis.call('UNLINK', KEYS[1])
return -1
