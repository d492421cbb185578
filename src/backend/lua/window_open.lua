-- Opens a window, or keeps it for longer, before something is written to it.
--
-- KEYS[1]  the totals of the window: hash of counter -> decimal i64. Its field ':window' is the time (ms) at which
--          the window is closed.
-- KEYS[2]  the index of these windows: hash of the start (ms) of each open window -> '<closed at> <end>' (ms). Its
--          field ':closed' is the newest end of a window that was closed.
-- KEYS[3]  the shape of the space (see shape.lua). Its field 'windows' is the time (ms) at which the last window of any
--          length and offset is closed, so that a copy finds out that there are windows without knowing which.
-- KEYS[4..] of a space that expires: the records of writers and lanes
-- ARGV[1]  the window: see guard.lua
--
-- The index has no TTL, so that no policy but allkeys-* evicts it. That of a space that expires goes with its last window,
-- and the records stay until that is closed: see renew() in guard.lua. A window's hash has one, for a time when nobody
-- writes any more. That is later than the time at which the window is closed: before, the hash is unlinked
-- (window_close.lua), because the server stops for as long as it takes to free a hash that expires.
--
-- Answer: the starts of some windows that are over, to be closed.

-- How many windows of the index are looked at.
local LOOKS = 16
-- How much later than its closing a hash expires, in ms: a length of the window, within these.
local SHORTEST, LONGEST = 60000, 86400000

local totals, index = KEYS[1], KEYS[2]
local mode, start, stop, till = string.match(ARGV[1], '^(%a) (%d+) (%d+) (%d+)$')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function failed(reply, key)
  return string.find(reply.err, 'WRONGTYPE', 1, true) and { err = 'FOREIGN ' .. key } or reply
end

local held = redis.pcall('HGET', totals, ':window')
if type(held) == 'table' then
  return failed(held, 1)
end
local both = redis.pcall('HMGET', index, start, ':closed')
if both.err then
  return failed(both, 2)
end
local listed, closed = both[1] and string.match(both[1], '^%d+'), both[2]
if mode == 'c' and (now < tonumber(start) or now >= tonumber(stop)) then
  return { err = 'NOTCURRENT ' .. string.format('%.0f', now) }
end
-- Until when the writes so far keep it: once that is over, one that would keep it for longer opens nothing again.
local kept_until = math.max(tonumber(held or '0'), tonumber(listed or '0'))
local is_over = kept_until > 0 and now >= kept_until
if kept_until > tonumber(till) then
  till = string.format('%.0f', kept_until)
end
if is_over or now >= tonumber(till) or kept_until == 0 and closed and tonumber(stop) <= tonumber(closed) then
  return { err = 'CLOSED the window is closed' }
end
if listed and not held then
  return { err = 'LOST the counters of the window are lost' }
end

-- First: windows that nobody knows of would be left behind. A shape that is lost is made by others.
local shape = KEYS[3]
local known = redis.pcall('HMGET', shape, 'layout', 'windows')
if known.err then
  return failed(known, 3)
end
if known[1] and (tonumber(known[2]) or 0) < tonumber(till) then
  local noted = redis.pcall('HSET', shape, 'windows', till)
  if type(noted) == 'table' then
    return noted
  end
end

-- Before the first of them: a hash without its TTL would stay for ever.
for _, name in ipairs(redis.acl_check_cmd and { 'HSET', 'PEXPIREAT', 'DEL' } or {}) do
  if not redis.acl_check_cmd(name, totals, '0', '0') then
    return { err = 'NOPERM a window needs ' .. name .. ' on ' .. totals }
  end
end
local grace = math.max(SHORTEST, math.min(LONGEST, tonumber(stop) - tonumber(start)))
local kept = redis.pcall('HSET', totals, ':window', till)
if type(kept) == 'table' then
  return kept
end
local timed = redis.pcall('PEXPIREAT', totals, string.format('%.0f', tonumber(till) + grace))
if type(timed) == 'table' then
  if not held then
    redis.pcall('DEL', totals)
  end
  return timed
end
-- Lets a key stay until then at least.
local function keep(key, at)
  local left = redis.pcall('PTTL', key)
  if type(left) == 'number' and now + left < at then
    redis.pcall('PEXPIREAT', key, string.format('%.0f', at))
  end
end
local listing = redis.pcall('HSET', index, start, till .. ' ' .. stop)
if type(listing) == 'table' then
  if not held then
    redis.pcall('DEL', totals)
  end
  return listing
end

if #KEYS > 3 then
  keep(index, tonumber(till) + grace)
  for at = 3, #KEYS do
    keep(KEYS[at], tonumber(till))
  end
end

local over = {}
local some = redis.pcall('HRANDFIELD', index, LOOKS, 'WITHVALUES')
for at = 1, #some, 2 do
  local till = string.match(some[at + 1], '^(%d+) %d+$')
  if some[at] ~= ':closed' and till and now >= tonumber(till) then
    over[#over + 1] = some[at]
  end
end
return over
