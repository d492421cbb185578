-- Reads counters of a window. Follows window_look.lua.
--
-- ARGV[1..]  the counters, and the window at the end
--
-- Answer: what is held, in the order of the counters, or nothing where nothing is held at all.
if gone or #ARGV == 1 then
  return {}
end
local keys = {}
for at = 1, #ARGV - 1 do
  keys[at] = ARGV[at]
end
-- The library's limit for the arguments of a call is about 8000.
return redis.call('HMGET', KEYS[1], unpack(keys))
