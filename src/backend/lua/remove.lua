-- Deletes counters.
--
-- KEYS, ARGV[1..4]  see guard.lua; never a writer's guard
-- ARGV[5..]         the counters
--
-- Answer: per counter the text that was held, '0' for a missing one.

local function remove()
  local answer = {}
  for at = FIRST, #ARGV do
    local held = redis.pcall('HGET', totals, ARGV[at])
    if type(held) == 'table' then
      return failed(held, 1)
    end
    if held then
      local reply = redis.pcall('HDEL', totals, ARGV[at])
      if type(reply) == 'table' then
        return failed(reply, 1)
      end
      wrote = true
    end
    answer[#answer + 1] = held or '0'
  end
  return answer
end

return guarded(remove)
