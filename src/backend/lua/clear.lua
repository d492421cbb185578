-- Deletes every plain counter of a space.
--
-- KEYS, ARGV[1..4]  see guard.lua; never a writer's guard
--
-- Answer: how many keys of the server were deleted, 0 or 1, in a table.

local function clear()
  local reply = redis.pcall('UNLINK', totals)
  if type(reply) == 'table' then
    return failed(reply, 1)
  end
  wrote, removed = true, true
  return { reply }
end

return guarded(clear)
