-- Additions, assignments and removals, with or without conditions.
--
-- KEYS, ARGV[1..5]  see guard.lua
-- ARGV[6..]         per item: counter; '+' add, '=' set, '-' remove or 'w' add within bounds; its decimal i64,
--                   0 for '-'; the condition on the value before, '' none, 'e' equal, 'n' not equal, 'l' less,
--                   'g' greater, 'le', 'ge'; the condition's decimal i64, or ''; for 'w' the least and the most
--                   that the value may come to, else '' twice
--
-- Answer: 1 if the batch was applied before, else 0 (or what guard.lua tells besides); then per item the text held before the write,
-- '!' and that text if the condition failed, 'o' for overflow, or 'n<text found>'.

-- Whether text is a canonical decimal i64, the only form that HINCRBY takes. No doubles here: they
-- lose digits above 2^53.
local function is_number(text)
  local digits = string.match(text, '^-?([1-9]%d*)$')
  if not digits then
    return text == '0'
  end
  if #digits ~= 19 then
    return #digits < 19
  end
  local limit = '9223372036854775807'
  if string.byte(text) == 45 then
    limit = '9223372036854775808'
  end
  return digits <= limit
end

-- Whether a < b, both canonical.
local function less(a, b)
  local negative = string.byte(a) == 45
  if negative ~= (string.byte(b) == 45) then
    return negative
  end
  if negative then
    a, b = b, a
  end
  if #a ~= #b then
    return #a < #b
  end
  return a < b
end

local function holds(condition, value, operand)
  if condition == 'e' then
    return value == operand
  elseif condition == 'n' then
    return value ~= operand
  elseif condition == 'l' then
    return less(value, operand)
  elseif condition == 'le' then
    return not less(operand, value)
  elseif condition == 'ge' then
    return not less(value, operand)
  end
  return less(operand, value)
end

local WIDTH = 7
local COMMANDS = { ['+'] = { 'HINCRBY' }, ['='] = { 'HSET' }, ['-'] = { 'HDEL' }, w = { 'HINCRBY', 'HSET' } }

-- Adds as much of the count as fits. Gives the failed reply, if any.
local function add_within(counter, old, count, least, most)
  local up = string.byte(count) ~= 45
  local bound = up and most or least
  local has_room = up and less(old, bound) or not up and less(bound, old)
  if count == '0' or less(most, least) or not has_room then
    return
  end
  local reply = redis.pcall('HINCRBY', totals, counter, count)
  if type(reply) == 'table' then
    if not string.find(reply.err, 'overflow', 1, true) then
      return reply
    end
  else
    wrote = true
    -- As text: a Lua number is not exact.
    local new = redis.pcall('HGET', totals, counter)
    if type(new) == 'table' or not (up and less(bound, new) or not up and less(new, bound)) then
      return type(new) == 'table' and new or nil
    end
  end
  reply = redis.pcall('HSET', totals, counter, bound)
  return type(reply) == 'table' and reply or nil
end

-- One item's part of the answer, or a table if the script must stop.
local function write(counter, change, count, condition, operand, least, most)
  local old = redis.pcall('HGET', totals, counter)
  if type(old) == 'table' then
    return failed(old, 1)
  end
  old = old or '0'
  local foreign = not is_number(old)
  if foreign and (change == '+' or change == 'w' or condition ~= '') then
    return not_a_number(old)
  end
  if condition ~= '' and not holds(condition, old, operand) then
    return '!' .. old
  end
  local reply
  if change == 'w' then
    reply = add_within(counter, old, count, least, most)
  elseif change == '+' then
    reply = redis.pcall('HINCRBY', totals, counter, count)
  elseif change == '-' then
    reply = redis.pcall('HDEL', totals, counter)
    removed = true
  else
    reply = redis.pcall('HSET', totals, counter, count)
  end
  if type(reply) == 'table' then
    if string.find(reply.err, 'overflow', 1, true) then
      return 'o'
    end
    return failed(reply, 1)
  end
  wrote = true
  if foreign and change == '-' then
    return not_a_number(old)
  end
  -- There is no number to answer with where foreign text was replaced.
  return foreign and '0' or old
end

local function write_all()
  local answer, lines = { 0 }, {}
  if #ARGV >= FIRST + WIDTH or ARGV[FIRST + 1] == 'w' then
    local needed, seen = {}, {}
    for at = FIRST + 1, #ARGV, WIDTH do
      local change = ARGV[at]
      for _, command in ipairs(seen[change] and {} or COMMANDS[change]) do
        needed[#needed + 1] = command
      end
      seen[change] = true
    end
    local reply = denied(needed)
    if reply then
      return reply
    end
  end
  for at = FIRST, #ARGV, WIDTH do
    local index = #answer
    local item = write(unpack(ARGV, at, at + WIDTH - 1))
    if type(item) == 'table' then
      return item
    end
    local first = string.byte(item)
    if first == 111 or first == 110 then
      lines[#lines + 1] = '\n' .. index .. ' ' .. item
    end
    answer[index + 1] = item
  end
  return answer, lines
end

return guarded(write_all, as_it_stands(WIDTH))
