-- Unconditional additions.
--
-- KEYS, ARGV[1], ARGV[2]  see guard.lua
-- ARGV[3..]               per item: counter, decimal i64 to add
--
-- Answer: 1 if the batch was applied before, else 0; then per item the new total (an integer, or
-- decimal text where a Lua number is not exact), 'o' for overflow, or 'n<text found>'.

local EXACT = 9007199254740992

local answer, lines = { 0 }, {}
local at = FIRST

-- Goes on until an addition fails; then `at` is where. To catch the error of all of them is cheaper than
-- to look at each answer.
local function add_on()
  local call, totals, args, all = redis.call, totals, ARGV, answer
  local place = #all
  for item = at, #args, 2 do
    at = item
    local total = call('HINCRBY', totals, args[item], args[item + 1])
    wrote = true
    if total >= EXACT or total <= -EXACT then
      total = call('HGET', totals, args[item])
    end
    place = place + 1
    all[place] = total
  end
  at = nil
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
  while at do
    if not pcall(add_on) then
      local refused = refusal(ARGV[at], ARGV[at + 1])
      if type(refused) == 'table' then
        return refused
      end
      lines[#lines + 1] = '\n' .. #answer .. ' ' .. refused
      answer[#answer + 1] = refused
      at = at + 2
    end
  end
  return answer, lines
end

return guarded(add, as_it_stands(2))
