  -- Who is dead, and what they left.

  -- Declares incarnations dead: 1000 at most.
  function tools.bury(list)
    if #list == 0 then return end
    local before, scored = deaths, {}
    deaths = call('HINCRBY', META, 'deaths', #list)
    for i = 1, #list do
      scored[2 * i - 1], scored[2 * i] = text(before + i), list[i]
    end
    call('ZREM', LEASES, unpack(list))
    local keys = { P .. 'quiet' }
    for i = 1, #list do keys[i + 1] = P .. 'lease:' .. list[i] end
    call('DEL', unpack(keys))
    call('ZADD', P .. 'dead', unpack(scored))
    call('HSET', META, 'dead', '1')
    backlog = '1'
  end

  function tools.bury_all(list)
    for from = 1, #list, 1000 do
      tools.bury({ unpack(list, from, math.min(from + 999, #list)) })
    end
  end

  -- A part of what tells of the dead is lost: all keys are looked through for what they left.
  function tools.look_through_all()
    deaths = call('HINCRBY', META, 'deaths', 1)
    verify, backlog = deaths, '1'
    call('HSET', META, 'verify', text(verify), 'cursor', '0', 'dead', '1')
    call('ZADD', P .. 'dead', text(deaths), 'v')
    call('DEL', P .. 'quiet')
  end

  local function swept(who)
    call('ZREM', P .. 'dead', who)
    if call('ZCARD', P .. 'dead') == 0 then
      call('HDEL', META, 'dead')
      backlog = false
    end
  end

  -- Looks through some keys. Gives how much work that was.
  local function look_through_some()
    local answer = call('HSCAN', P .. 'index', call('HGET', META, 'cursor') or '0', 'COUNT', 20)
    local list, before = answer[2], budget
    for i = 1, #list, 2 do
      local collected = try('HGET', P .. 'k:' .. list[i], 'c')
      if type(collected) == 'string' and (tonumber(collected) or verify) < verify and load(list[i]).again then
        -- The rest of this portion is for the next call; what is done is skipped then.
        return 1000
      end
    end
    call('HSET', META, 'cursor', answer[1])
    if answer[1] == '0' then swept('v') end
    return #list / 2 + before - budget
  end

  -- Finds those whose lease has run out. True if there are more.
  function tools.find_dead()
    local list = call('ZRANGEBYSCORE', LEASES, '-inf', text(NOW), 'LIMIT', 0, 1000)
    local dead = {}
    for i = 1, #list do
      local left = call('PTTL', P .. 'lease:' .. list[i])
      if left >= 0 then
        call('ZADD', LEASES, text(NOW + left + 1), list[i])
      else
        dead[#dead + 1] = list[i]
      end
    end
    tools.bury(dead)
    local next_end = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')[2]
    due = next_end ~= 'inf' and tonumber(next_end) or 0
    call('HSET', META, 'due', text(due))
    return #list == 1000
  end

  -- Remembers that an instance is gone, and forgets some that are for too long.
  local function leave_behind(id)
    local kept = call('HMGET', META, 'age', 'absence')
    local age, absence = tonumber(kept[1]) or 0, tonumber(kept[2])
    local some = call('HRANDFIELD', P .. 'gone', 4, 'WITHVALUES')
    for i = 1, #some, 2 do
      if some[i] ~= ':' and absence and age - tonumber(some[i + 1]) > absence then
        call('HDEL', P .. 'gone', some[i])
      end
    end
    call('HSET', P .. 'gone', id, text(age))
  end

  -- Removes up to `limit` slices of a dead one. Gives how many there were, and whether it is done with.
  function tools.sweep_one(who, limit)
    if who == 'v' then return look_through_some(), true end
    local inst, keys = P .. 'inst:' .. who, P .. 'keys:' .. who
    if string.find(who, '^%d') and call('SISMEMBER', keys, ':') == 0 then
      tools.look_through_all()
      call('SADD', keys, ':')
    end
    local list, marked = call('SPOP', keys, text(limit)), false
    for i = 1, #list do
      if list[i] == ':' then
        marked = true
      else
        tools.remove_slice(list[i], who)
      end
    end
    if #list == limit then
      if marked then call('SADD', keys, ':') end
      return #list, false
    end
    local known = call('HMGET', inst, 'id', 'name', 'late')
    -- Of one that came too late and never heard so, nothing is remembered.
    local unheard = known[3] and call('GET', P .. 'v:' .. who) == '1'
    for i, prefix in ipairs({ 'i:', 'n:' }) do
      local field = known[i] and prefix .. known[i]
      local holder = field and call('HGET', P .. 'names', field)
      if holder == who then call('HDEL', P .. 'names', field) end
      if i == 1 and field and not unheard and (holder == who or not holder) then leave_behind(known[1]) end
    end
    call('UNLINK', inst, P .. 'v:' .. who)
    swept(who)
    return #list, true
  end

  -- One bounded portion of what the dead left.
  function tools.sweep()
    local left = 200
    while left > 0 and backlog do
      left = left - tools.sweep_one(call('ZRANGE', P .. 'dead', 0, 0)[1], left) - 5
    end
  end

  -- Collects what the keys ARGV[from], ARGV[from + stride], ... need. True if there is more to do.
  function tools.prepare(from, stride)
    for i = from, #ARGV, stride do
      local collected = try('HGET', P .. 'k:' .. ARGV[i], 'c')
      if type(collected) == 'string' and (tonumber(collected) or deaths) < deaths
        and load(ARGV[i], true).again then return true end
    end
    return false
  end

  function tools.holds(condition, value, operand)
    if condition == '<' then return tools.less(value, operand) end
    if condition == '>' then return tools.less(operand, value) end
    if condition == '<=' then return not tools.less(operand, value) end
    if condition == '>=' then return not tools.less(value, operand) end
    local differs = tools.less(value, operand) or tools.less(operand, value)
    return (condition == '!') == differs
  end

  return tools
end

