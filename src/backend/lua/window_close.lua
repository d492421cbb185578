-- Closes windows that are over: see window_open.lua, which names them.
--
-- KEYS[1]    the index
-- KEYS[2..]  the totals of the windows
-- ARGV       the start of each
--
-- Answer: nothing.
local index = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at, start in ipairs(ARGV) do
  local till, stop = string.match(redis.call('HGET', index, start) or '', '^(%d+) (%d+)$')
  if till and now >= tonumber(till) then
    local closed = redis.call('HGET', index, ':closed')
    -- First: a step of the clock back must not open it again.
    if not closed or tonumber(closed) < tonumber(stop) then
      redis.call('HSET', index, ':closed', stop)
    end
    redis.call('UNLINK', KEYS[at + 1])
    redis.call('HDEL', index, start)
  end
end
return {}
