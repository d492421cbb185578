-- Tells whether a space has windows that are not closed: see window_open.lua.
--
-- KEYS[1]  the shape of the space
--
-- Answer: 1 or 0.
local held = redis.pcall('HGET', KEYS[1], 'windows')
if type(held) == 'table' then
  return string.find(held.err, 'WRONGTYPE', 1, true) and { err = 'FOREIGN 1' } or held
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return (tonumber(held or '0') or 0) > now and 1 or 0
