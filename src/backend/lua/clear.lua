-- Deletes every plain counter of a space.
--
-- KEYS, ARGV[1..5]  see guard.lua; never a writer's guard
--
-- Answer: how many keys of the server were deleted, 0 or 1, in a table.

-- An empty window is an open one: its hash stays, and so does the time when that expires.
local function clear_window()
  local till = redis.pcall('HGET', totals, ':window')
  local expires = redis.pcall('PTTL', totals)
  if expires < 0 then
    -- Somebody has taken its TTL away.
    expires = 86400000
  end
  local again = { { 'HSET', totals, ':window', till }, { 'PEXPIRE', totals, expires } }
  for _, call in ipairs(redis.acl_check_cmd and again or {}) do
    if not redis.acl_check_cmd(unpack(call)) then
      return { err = 'NOPERM a window needs ' .. call[1] .. ' on ' .. totals }
    end
  end
  local reply = redis.pcall('UNLINK', totals)
  if type(reply) == 'table' then
    return failed(reply, 1)
  end
  wrote = true
  for _, call in ipairs(again) do
    reply = redis.pcall(unpack(call))
    if type(reply) == 'table' then
      return failed(reply, 1)
    end
  end
  return { 1 }
end

local function clear()
  if window ~= '' then
    return clear_window()
  end
  local reply = redis.pcall('UNLINK', totals)
  if type(reply) == 'table' then
    return failed(reply, 1)
  end
  wrote, removed = true, true
  return { reply }
end

return guarded(clear)
