-- Unconditional additions.
--
-- KEYS, ARGV[1..5]  see guard.lua
-- ARGV[6..]         per item: counter, decimal i64 to add
--
-- Answer: 1 if the batch was applied before, else 0 (or what guard.lua tells besides); then per item the new total (an integer, or
-- decimal text where a Lua number is not exact), 'o' for overflow, or 'n<text found>'.

local EXACT = 9007199254740992

local answer, lines = { 0 }, {}
-- Why the answer cannot be completed, although the addition was done.
local unreadable

-- Goes on where the answer ends, until an addition fails. To catch the error of all of them is cheaper than
-- to look at each answer.
local function add_on()
  local call, totals, args, all = redis.call, totals, ARGV, answer
  local place = #all
  for item = FIRST + 2 * (place - 1), #args, 2 do
    local total = call('HINCRBY', totals, args[item], args[item + 1])
    if total >= EXACT or total <= -EXACT then
      total = redis.pcall('HGET', totals, args[item])
      if type(total) == 'table' then
        unreadable = total
        return
      end
    end
    place = place + 1
    all[place] = total
  end
end

-- Why an addition was turned down, or a table if the script must stop.
local function refusal(counter, count)
  local reply = redis.pcall('HINCRBY', totals, counter, count)
  if string.find(reply.err, 'overflow', 1, true) then
    return 'o'
  elseif string.find(reply.err, 'not an integer', 1, true) then
    reply = redis.pcall('HGET', totals, counter)
    if type(reply) ~= 'table' then
      return not_a_number(reply)
    end
  end
  return failed(reply, 1)
end

local function add()
  local reply = #ARGV > FIRST + 1 and denied({ 'HINCRBY', 'HGET' })
  if reply then
    return reply
  end
  -- Each turned down is a line; whatever else was answered was added.
  while not pcall(add_on) do
    local at = FIRST + 2 * (#answer - 1)
    wrote = #answer > #lines + 1
    local refused = refusal(ARGV[at], ARGV[at + 1])
    if type(refused) == 'table' then
      return refused
    end
    lines[#lines + 1] = '\n' .. #answer .. ' ' .. refused
    answer[#answer + 1] = refused
  end
  wrote = #answer > #lines + 1 or unreadable
  if unreadable then
    return failed(unreadable, 1)
  end
  return answer, lines
end

return guarded(add, as_it_stands(2))
