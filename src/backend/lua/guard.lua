-- Comes before the body of every script of plain counters. Follows records.lua.
--
-- KEYS[1]  the totals: hash of counter -> decimal i64
-- KEYS[2]  with a guard: the records of the writers, or of the lanes (hash, see below)
-- KEYS[3]  the shape of the space (hash, see shape.lua); without a guard what removes counters needs it, too
-- KEYS[4]  of a space that expires: the other records, which expire with it
-- ARGV[1]  '' no guard; 'w' a writer's replay guard; 'l' a lane
-- ARGV[2]  the sequence of the batch, 1 to 2^53; '' without a guard
-- ARGV[3]  the id of the writer or lane; '' without a guard
-- ARGV[4]  '1' if an earlier attempt of the batch may have arrived, else ''; in one of several shards, or
--          where the space expires, ':' and what the shape has for `shards` follow
-- ARGV[5]  '' or the window that the totals are of: '<c or l> <start> <end> <closed at>' (ms). With 'c' it must be
--          the current one; with 'l' it need not.
--
-- A record has no TTL, so that no eviction policy but allkeys-* takes it. It is text, for redis-cli:
-- '<sequence> <age>', where the age is that of the hash at the record's last use. For a writer a line
-- follows for each refused item, '<index> o' (overflow) or '<index> n<text found>'; for a lane a line break
-- and the packed answer. The field ':clock' is '<generation> <seen> <age>': when the hash was made (us), the
-- server's time when it was last looked at (s), and the age of the hash (s), which a step of the server's
-- clock moves by at most LONGEST_STEP: the age may be late, never early.
--
-- The field `totals` of the shape is the life of the totals: when they were made (us), '0' for those that were there
-- before it; and '-' while there are none, or a single one that is 0, or '!' if tokens began it after a loss, of which
-- nobody was told yet. Where they are gone without '-', they were lost,
-- and the next ones are another life.
--
-- With a guard, the first element of an answer is '<0 or 1> <generation> <sequence on record> <life of the totals>'
-- instead of 0 or 1 where the record is not that of the batch before, where there were no totals, and in a replay. So a
-- process finds what was lost.
--
-- A wrong type answers the error 'FOREIGN <index in KEYS>'. Nothing has been written then, nor after
-- any other error but 'PARTLY <error>': the server decides before the first write of a script whether
-- it may write, but a user may be allowed one command and denied another.

local totals, records, shape = KEYS[1], KEYS[2], KEYS[3]
local guard, sequence, id, resent, window = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local FIRST = 6

-- How long a record is kept after its last use, in seconds of the hash's age.
local LIFE = { w = 86400, l = 3600 }

-- Whether a body has changed a counter, or an earlier attempt may have; and whether it has removed one.
local wrote, removed = false, false

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

-- A user that may not run all of these would leave a batch half done. Before Redis 7 there is no asking.
local function denied(names)
  for _, name in ipairs(redis.acl_check_cmd and names or {}) do
    if not redis.acl_check_cmd(name, totals, ARGV[FIRST], '0') then
      return { err = 'NOPERM a batch needs ' .. name .. ' on ' .. totals }
    end
  end
end

-- After how many milliseconds without a write the space expires, if it does.
local idle = string.match(resent, '/(%d+)$')

-- All keys of the space get the same time, so that they expire together: a second later than they may, because
-- add_quick.lua does not renew those that are there, and 3 s more, in which expire.lua may come first. What is remembered
-- of writers stays for as long as the counters of the window that is written to, and of windows before: a batch that is
-- sent again would count twice in them.
local function renew()
  if not idle then
    return
  end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local soon = now + idle + 4000
  local late = math.max(soon, tonumber(string.match(window, '%d+$') or '0'))
  for _, key in ipairs(KEYS) do
    if key ~= totals then
      local left = redis.pcall('PTTL', key)
      if type(left) == 'table' or now + left < late then
        redis.pcall('PEXPIREAT', key, string.format('%.0f', late))
      end
    elseif window == '' then
      -- A window has a time of its own.
      redis.pcall('PEXPIREAT', key, string.format('%.0f', soon))
    end
  end
end

-- Makes a replica turn the script down although it has nothing to write.
local function only_on_a_primary(answer)
  if not wrote and guard == '' then
    local reply = redis.pcall('HDEL', totals, ':none')
    if type(reply) == 'table' and string.find(reply.err, 'READONLY', 1, true) then
      return reply
    end
  end
  return answer
end

-- Why the window takes no write, if it does not. 'UNOPENED' is for the client to open it: see window_open.lua.
local function outside_of_window()
  if window == '' then
    return
  end
  local mode, start, stop, till = string.match(window, '^(%a) (%d+) (%d+) (%d+)$')
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if mode == 'c' and (now < tonumber(start) or now >= tonumber(stop)) then
    return { err = 'NOTCURRENT ' .. string.format('%.0f', now) }
  end
  local held = redis.pcall('HGET', totals, ':window')
  if type(held) == 'table' then
    return failed(held, 1)
  end
  if not held or tonumber(held) < tonumber(till) then
    return { err = 'UNOPENED the window is not open' }
  end
  if now >= tonumber(held) then
    return { err = 'CLOSED the window is closed' }
  end
end

local function keep(value, clock)
  local kept
  if clock then
    kept = redis.pcall('HSET', records, id, value, ':clock', clock)
  else
    kept = redis.pcall('HSET', records, id, value)
  end
  return type(kept) == 'table' and kept or nil
end

-- How many totals there are; more than one where that cannot be told.
local function number_of_totals()
  local number = redis.pcall('HLEN', totals)
  return type(number) == 'number' and number or 2
end

-- Whether no count would be missed if the totals were lost.
local function holds_nothing()
  local number = number_of_totals()
  return number == 0 or number == 1 and redis.pcall('HGETALL', totals)[2] == '0'
end

-- Notes the life of the totals, of which the script found so many, and gives it; nil where that is not possible. Windows
-- have none: what tells of their loss is their index.
local function life_of_totals(had)
  if window ~= '' then
    return '0'
  end
  local kept = redis.pcall('HGET', shape, 'totals') or ''
  if type(kept) == 'table' then
    return nil
  end
  local life, left = string.match(kept, '^(%d+)([-!]?)$')
  if not life and had > 0 then
    life = '0'
  elseif not life or had == 0 and left ~= '-' then
    local time = redis.pcall('TIME')
    if time.err then
      return nil
    end
    life = time[1] .. string.format('%06d', time[2])
  end
  local now = holds_nothing() and life .. '-' or life
  if now ~= kept and type(redis.pcall('HSET', shape, 'totals', now)) == 'table' then
    return nil
  end
  return life
end

-- Runs body() unless the record says that it ran before; then answers replay(refusals), or for a lane the
-- first answer. body() gives its answer and the lines for a writer's record; both give a table.
local function guarded(body, replay)
  if guard == '' then
    local outside = outside_of_window()
    if outside then
      return outside
    end
    local had = number_of_totals()
    local answer = body()
    if wrote and (had < 2 or removed) then
      life_of_totals(had)
    end
    return only_on_a_primary(answer)
  end
  local both = redis.pcall('HMGET', records, id, ':clock')
  if both.err then
    return failed(both, 2)
  end
  local held = both[1]
  local last = held and string.match(held, '^%d+')
  local generation, age, clock = clock_of(both[2])
  local function told(flag, had)
    local life = life_of_totals(had)
    if idle then
      -- What expires is not lost.
      return tonumber(flag)
    end
    return life and table.concat({ flag, generation, last or '0', life }, ' ') or tonumber(flag)
  end
  if last and tonumber(last) >= tonumber(sequence) then
    wrote = true
    if guard == 'l' then
      return first_answer(held, sequence)
    end
    local refusals = {}
    if last == sequence then
      for index, refusal in string.gmatch(held, '\n(%d+) ([^\n]*)') do
        refusals[tonumber(index)] = refusal
      end
    end
    local answer = replay(refusals)
    if not answer.err then
      answer[1] = told('1', 2)
    end
    return answer
  end
  local outside = outside_of_window()
  if outside then
    return outside
  end
  if idle and redis.acl_check_cmd and not redis.acl_check_cmd('PEXPIREAT', totals, '0') then
    return { err = 'NOPERM a space that expires needs PEXPIREAT on ' .. totals }
  end
  if not held then
    local field = guard == 'w' and 'guards' or 'lanes'
    local refused = admit(shape, field, generation, tonumber(age) > LIFE[guard], resent)
    if refused then
      return failed(refused, 3)
    end
    sweep(records, LIFE[guard], age)
  end
  local had = number_of_totals()
  -- Once a second is enough.
  local untold = clock and window == '' and redis.pcall('HGET', shape, 'totals')
  untold = type(untold) == 'string' and string.byte(untold, -1) == 33
  -- Before the batch: one that is applied and not recorded would be applied again.
  local denied = keep(sequence .. ' ' .. age, clock)
  if denied then
    return failed(denied, 2)
  end
  local answer, lines = body()
  local follows = last and tonumber(last) == tonumber(sequence) - 1
  if replay and not answer.err and (had == 0 or not follows or untold) then
    answer[1] = told('0', had)
  elseif wrote and (had < 2 or removed) then
    life_of_totals(had)
  end
  renew()
  if answer.err and not wrote then
    -- By the command that has just worked.
    keep(unclaimed(held, sequence, age))
  elseif guard == 'l' and not answer.err then
    local lost = keep(sequence .. ' ' .. age .. '\n' .. cmsgpack.pack(answer))
    if lost then
      wrote = true
      return failed(lost, 2)
    end
  elseif lines and lines[1] then
    keep(sequence .. ' ' .. age .. table.concat(lines))
  end
  return answer
end

-- A refusal because of what is there, shortened to what a record may hold.
local function not_a_number(found)
  return 'n' .. string.gsub(string.sub(found, 1, 260), '\n', ' ')
end

-- The answer to a batch that was applied before: 1 or what is told in its place, then per item '=' and the value as it
-- stands, or the refusal. An item has `width` arguments, its counter first.
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
