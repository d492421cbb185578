-- Unconditional additions.
--
-- KEYS, ARGV[1], ARGV[2]  see guard.lua
-- ARGV[3..]               per item: counter, decimal i64 to add
--
-- Answer: 1 if the batch was applied before, else 0; then per item the new total (an integer, or
-- decimal text where a Lua number is not exact), 'o' for overflow, or 'n<text found>'.

local EXACT = 9007199254740992

local function add()
  local answer, lines = { 0 }, {}
  for at = FIRST, #ARGV, 2 do
    local counter = ARGV[at]
    local total = redis.pcall('HINCRBY', totals, counter, ARGV[at + 1])
    local index = #answer
    if type(total) == 'table' then
      if string.find(total.err, 'overflow', 1, true) then
        total = 'o'
      elseif string.find(total.err, 'not an integer', 1, true) then
        total = redis.pcall('HGET', totals, counter)
        if type(total) == 'table' then
          return failed(total, 1)
        end
        total = not_a_number(total)
      else
        return failed(total, 1)
      end
      lines[#lines + 1] = '\n' .. index .. ' ' .. total
    else
      wrote = true
      if total >= EXACT or total <= -EXACT then
        total = redis.pcall('HGET', totals, counter)
        if type(total) == 'table' then
          return failed(total, 1)
        end
      end
    end
    answer[index + 1] = total
  end
  return answer, lines
end

return guarded(add, as_it_stands(2))
