-- Comes before the body of every script of plain counters.
--
-- KEYS[1]  the totals: hash of counter -> decimal i64
-- KEYS[2]  the record of the writer or lane; absent without a guard
-- ARGV[1]  '' no guard; 'w' a writer's replay guard; 'l' a lane
-- ARGV[2]  the sequence of the batch, 1 to 2^53; '' without a guard
--
-- A lane's record holds the answer itself: what a client sent twice gets the first answer twice.
-- A writer's record is text, for redis-cli: the sequence, then one line for each refused item,
-- '<index> o' (overflow) or '<index> n<text found>'.
--
-- A wrong type answers the error 'FOREIGN <index in KEYS>'. Nothing has been written then, nor after
-- any other error but 'PARTLY <error>': the server decides before the first write of a script whether
-- it may write, but a user may be allowed one command and denied another.

local totals, record = KEYS[1], KEYS[2]
local guard, sequence = ARGV[1], ARGV[2]
local FIRST = 3

local WRITER_LIFE = 86400000
local LANE_LIFE = 3600000

-- Whether a body has changed a counter.
local wrote = false

-- What a failed call means for the whole script.
local function failed(reply, index)
  if wrote then
    return { err = 'PARTLY ' .. reply.err }
  end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    return { err = 'FOREIGN ' .. index }
  end
  return reply
end

-- Runs body() unless the record says that it ran before; then answers replay(refusals).
-- body() gives its answer and the lines for a writer's record; both give a table.
local function guarded(body, replay)
  if guard == '' then
    return (body())
  end
  local held = redis.pcall('GET', record)
  if type(held) == 'table' then
    return failed(held, 2)
  end
  if guard == 'l' then
    if held then
      local last = cmsgpack.unpack(held)
      if last[1] >= tonumber(sequence) then
        return last[2]
      end
    end
    local answer = body()
    if not answer.err then
      local text = cmsgpack.pack({ tonumber(sequence), answer })
      local kept = redis.pcall('SET', record, text, 'PX', LANE_LIFE)
      if kept.err then
        return failed(kept, 2)
      end
    end
    return answer
  end
  if held then
    local last = string.match(held, '^%d+')
    if last and tonumber(last) >= tonumber(sequence) then
      local refusals = {}
      if last == sequence then
        for index, refusal in string.gmatch(held, '\n(%d+) ([^\n]*)') do
          refusals[tonumber(index)] = refusal
        end
      end
      return replay(refusals)
    end
  end
  -- Before the batch: one that is applied and not recorded would be applied again.
  local claimed = redis.pcall('SET', record, sequence, 'PX', WRITER_LIFE)
  if claimed.err then
    return failed(claimed, 2)
  end
  local answer, lines = body()
  if answer.err and not wrote then
    if held then
      redis.call('SET', record, held, 'PX', WRITER_LIFE)
    else
      redis.call('SET', record, '', 'PX', 1)
    end
  elseif lines and lines[1] then
    redis.call('SET', record, sequence .. table.concat(lines), 'PX', WRITER_LIFE)
  end
  return answer
end

-- A refusal because of what is there, shortened to what a record may hold.
local function not_a_number(found)
  return 'n' .. string.gsub(string.sub(found, 1, 260), '\n', ' ')
end

-- The answer to a batch that was applied before: 1, then per item '=' and the value as it stands, or
-- the refusal. An item has `width` arguments, its counter first.
local function as_it_stands(width)
  return function(refusals)
    local answer = { 1 }
    for at = FIRST, #ARGV, width do
      local index = #answer
      local value = refusals[index]
      if not value then
        value = redis.pcall('HGET', totals, ARGV[at])
        if type(value) == 'table' then
          return failed(value, 1)
        end
        value = '=' .. (value or '0')
      end
      answer[index + 1] = value
    end
    return answer
  end
end
