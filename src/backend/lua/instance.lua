-- What the scripts of the instance-aware counters share. Follows instance_names.lua.
local LEASES = P .. 'leases'
local INC, born, floor, deaths, backlog, due
-- What an operation answers that finds a part of the space lost. Everybody has to join anew then, and puts back
-- what was acknowledged.
local LOST, lost_answer = {}, 'notjoined'
local EXACT = 2251799813685248
-- How many slices of the dead one call collects before it asks to be called again.
local budget = 500

local time = call('TIME')
local MICROS = time[1] * 1000000 + time[2]
local NOW = math.floor(MICROS / 1000)

local function text(number) return string.format('%.0f', number) end

-- The epoch of a change: odd, as the first one was.
local function new_epoch() return text(call('HINCRBY', META, 'epoch', 2)) end

-- No lease has more left than its own length: what a clock that went back would add is taken off.
local function cap_leases()
  local list = call('ZRANGEBYSCORE', LEASES, '(' .. text(NOW), '(+inf', 'WITHSCORES')
  for i = 1, #list, 2 do
    local length = tonumber(call('HGET', P .. 'inst:' .. list[i], 'lease'))
    if length and tonumber(list[i + 1]) > NOW + length then
      call('ZADD', LEASES, text(NOW + length), list[i])
      call('DEL', P .. 'lease:' .. list[i])
      due = math.min(due, NOW + length)
    end
  end
  call('HSET', META, 'seen', text(NOW), 'due', text(due))
  call('DEL', P .. 'quiet')
end

local function read_meta()
  local meta = call('HMGET', META, 'born', 'floor', 'deaths', 'dead', 'due', 'seen')
  born, floor, deaths, backlog = tonumber(meta[1]), tonumber(meta[2]), tonumber(meta[3]), meta[4]
  due = tonumber(meta[5]) or 0
  -- The server's clock went back.
  if meta[6] and NOW < tonumber(meta[6]) then cap_leases() end
  return born
end

-- What only some calls need is made when one of them does.
local tools, load
local function slow()
  if tools then return tools end
  tools = {}
  local UNIT = 10000000000

  -- Numbers beyond 2^53 are pairs: high * 10^10 + low, 0 <= low < 10^10.
  local function pair(high, low)
    local carry = math.floor(low / UNIT)
    return { high + carry, low - carry * UNIT }
  end

  local function parse(value)
    if type(value) == 'table' then return value end
    local sign, digits = string.match(value, '^(-?)(%d+)$')
    if not digits or #digits > 19 then return nil end
    local high, low = tonumber(string.sub(digits, 1, -11)) or 0, tonumber(string.sub(digits, -10))
    if sign == '-' then high, low = -high, -low end
    return pair(high, low)
  end

  local function less(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end

  local MAX, MIN = parse('9223372036854775807'), parse('-9223372036854775808')

  local function show(a)
    local high, low, sign = a[1], a[2], ''
    if high < 0 then
      sign, high, low = '-', -high, -low
      if low < 0 then high, low = high - 1, low + UNIT end
    end
    if high == 0 then return sign .. text(low) end
    return sign .. text(high) .. string.format('%010.0f', low)
  end

  local function fits(a) return not (less(a, MIN) or less(MAX, a)) end

  local function plus(a, b, sign) return pair(a[1] + sign * b[1], a[2] + sign * b[2]) end

  function tools.is_count(value)
    local a = parse(value)
    return a and fits(a)
  end

  function tools.sum(a, b, c)
    local result = plus(plus(parse(a), parse(b), 1), parse(c), -1)
    return fits(result) and show(result) or nil
  end

  function tools.less(a, b) return less(parse(a), parse(b)) end

  -- Writes a total that may lie outside of an i64.
  local function put_total(st, total)
    st.big = nil
    if fits(total) then
      st.t = show(total)
      if st.s then call('HDEL', st.name, 's') end
      st.s = nil
      call('HSET', st.name, 't', st.t)
    else
      st.t, st.s, st.big = show(less(total, MIN) and MIN or MAX), '1', total
      call('HSET', st.name, 't', st.t, 's', '1')
    end
  end

  -- The true sum of a key whose total is clamped.
  local function rebuild(st)
    local all, high, low = call('HGETALL', st.name), 0, 0
    for i = 1, #all, 2 do
      local slice = string.find(all[i], '^%d') and parse(all[i + 1])
      if slice then high, low = high + slice[1], low + slice[2] end
    end
    put_total(st, pair(high, low))
  end
  tools.rebuild = rebuild

  -- Takes `part` away from the total; the slices that make it up are gone already.
  local function reduce(st, part)
    if st.s then return rebuild(st) end
    local total = parse(st.t)
    if total then put_total(st, plus(total, part, -1)) end
  end

  function tools.add(st, value) put_total(st, plus(parse(st.big or st.t), parse(value), 1)) end

  -- The hash of a key is lost, and the slices in it: its epoch is kept, and everybody joins anew.
  function tools.lose(key, epoch)
    call('HDEL', P .. 'index', key)
    if tonumber(epoch) ~= floor then call('HSET', P .. 'tombs', key, epoch) end
    tools.bury_all(call('ZRANGEBYSCORE', LEASES, '-inf', '(+inf'))
    error(LOST)
  end

  function tools.bury_all(list)
    for from = 1, #list, 1000 do
      tools.bury({ unpack(list, from, math.min(from + 999, #list)) })
    end
  end

  function tools.missing(st)
    local epoch = call('HGET', P .. 'index', st.key)
    if epoch and not (floor ~= born and tonumber(epoch) < floor) then tools.lose(st.key, epoch) end
    if epoch then call('HDEL', P .. 'index', st.key) end
    st.tomb = call('HGET', P .. 'tombs', st.key)
    st.t, st.v, st.s, st.big, st.absent, st.e = '0', nil, nil, nil, true, st.tomb or text(floor)
  end

  -- Deletes a key that has lost its last slice; its epoch must not be forgotten.
  function tools.vanish(st)
    call('UNLINK', st.name)
    call('HDEL', P .. 'index', st.key)
    if tonumber(st.e) ~= floor then call('HSET', P .. 'tombs', st.key, st.e) end
  end

  -- Takes from a key what was put back from before the change `epoch`, and makes that its epoch. What was
  -- written since the data was lost stays.
  function tools.take_over(st, epoch)
    local all, limit = call('HGETALL', st.name), tonumber(epoch)
    for i = 1, #all, 2 do
      local who = string.match(all[i], '^o(%d+)$')
      local claimed, value = string.match(all[i + 1], '^(%d+) (%-?%d+)$')
      if who and claimed and tonumber(claimed) < limit then
        call('HDEL', st.name, all[i])
        local slice = parse(call('HGET', st.name, who) or '0')
        local rest = slice and plus(slice, parse(value), -1) or pair(0, 0)
        rest = less(rest, MIN) and MIN or less(MAX, rest) and MAX or rest
        if show(rest) == '0' then
          call('HDEL', st.name, who)
          call('SREM', P .. 'keys:' .. who, st.key)
        else
          call('HSET', st.name, who, show(rest))
        end
      end
    end
    st.e = epoch
    if call('HLEN', st.name) <= (st.s and 4 or 3) then
      tools.vanish(st)
      return tools.missing(st)
    end
    call('HSET', st.name, 'e', epoch)
    call('HSET', P .. 'index', st.key, epoch)
    rebuild(st)
  end

  -- Deletes a key with all its slices.
  function tools.drop(st)
    if st.absent then return end
    local owners = try('HKEYS', st.name)
    for i = 1, #owners do
      if string.find(owners[i], '^%d') then call('SREM', P .. 'keys:' .. owners[i], st.key) end
    end
    call('UNLINK', st.name)
    call('HDEL', P .. 'index', st.key)
  end

  -- Removes from a key the slices of those who died after its last collection.
  function tools.collect(st, collected)
    local gone, high, low, take, count = false, 0, 0, nil, nil
    repeat
      take = math.min(1000, budget)
      if take <= 0 then st.again = true break end
      local dead = call('ZRANGEBYSCORE', P .. 'dead', '(' .. collected, '+inf', 'WITHSCORES', 'LIMIT', 0, take)
      count = #dead / 2
      budget = budget - count - 1
      if count > 0 then
        local who, had = {}, {}
        for i = 1, count do who[i] = dead[2 * i - 1] end
        local slices = call('HMGET', st.name, unpack(who))
        for i = 1, count do
          if slices[i] then
            had[#had + 1] = who[i]
            local small = string.find(slices[i], '^-?%d+$') and #slices[i] < 12 and tonumber(slices[i])
            if small then
              low = low + small
            else
              local slice = parse(slices[i])
              if slice then high, low = high + slice[1], low + slice[2] end
            end
          end
        end
        if #had > 0 then
          gone = true
          for i = 1, #had do had[#had + 1] = 'o' .. had[i] end
          call('HDEL', st.name, unpack(had))
        end
      end
      collected = count < take and text(deaths) or dead[#dead]
    until count < take
    if gone and call('HLEN', st.name) <= (st.s and 4 or 3) then
      tools.vanish(st)
      return tools.missing(st)
    end
    call('HSET', st.name, 'c', collected)
    if gone then reduce(st, pair(high, low)) end
  end

  -- Removes one incarnation's slice of a key, whatever the numbers.
  function tools.remove_slice(key, inc)
    local name = P .. 'k:' .. key
    local h = try('HMGET', name, 't', 'e', 's', inc)
    if h.err or not (h[1] and tonumber(h[2])) then return end
    if floor ~= born and tonumber(h[2]) < floor then
      call('HDEL', P .. 'index', key)
      return call('UNLINK', name)
    end
    if not h[4] then return end
    local st = { key = key, name = name, t = h[1], e = h[2], s = h[3] }
    call('HDEL', name, inc, 'o' .. inc)
    if call('HLEN', name) <= (st.s and 4 or 3) then return tools.vanish(st) end
    reduce(st, parse(h[4]) or pair(0, 0))
  end

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

  -- Removes up to `limit` slices of a dead one. Gives how many there were, and whether it is done with.
  function tools.sweep_one(who, limit)
    local keys = call('SPOP', P .. 'keys:' .. who, text(limit))
    for i = 1, #keys do tools.remove_slice(keys[i], who) end
    if #keys == limit then return #keys, false end
    local inst = P .. 'inst:' .. who
    local named = call('HMGET', inst, 'id', 'name')
    for i, prefix in ipairs({ 'i:', 'n:' }) do
      local field = named[i] and prefix .. named[i]
      if field and call('HGET', P .. 'names', field) == who then call('HDEL', P .. 'names', field) end
    end
    call('UNLINK', inst, P .. 'v:' .. who)
    call('ZREM', P .. 'dead', who)
    if call('ZCARD', P .. 'dead') == 0 then
      call('HDEL', META, 'dead')
      backlog = false
    end
    return #keys, true
  end

  -- One bounded portion of what the dead left.
  function tools.sweep()
    local left = 200
    while left > 0 and backlog do
      local who = call('ZRANGE', P .. 'dead', 0, 0)[1]
      if not who then return call('HDEL', META, 'dead') end
      left = left - tools.sweep_one(who, left) - 5
    end
  end

  -- Collects what the keys ARGV[from], ARGV[from + stride], ... need. True if there is more to do.
  function tools.prepare(from, stride)
    for i = from, #ARGV, stride do
      local collected = try('HGET', P .. 'k:' .. ARGV[i], 'c')
      if type(collected) == 'string' and (tonumber(collected) or deaths) < deaths
        and load(ARGV[i]).again then return true end
    end
    return false
  end

  function tools.holds(condition, value, operand)
    if condition == '<' then return tools.less(value, operand) end
    if condition == '>' then return tools.less(operand, value) end
    local differs = tools.less(value, operand) or tools.less(operand, value)
    return (condition == '!') == differs
  end

  return tools
end

-- The key alone is what quick operations renew; the set is what counts where the key is lost, be it that
-- the lease ran out and nobody collected the instance.
local function renew(lease)
  local ends = NOW + lease
  call('ZADD', LEASES, text(ends), INC)
  if ends - 1 > NOW then
    call('SET', P .. 'lease:' .. INC, lease, 'PXAT', text(ends - 1))
  else
    call('DEL', P .. 'lease:' .. INC)
  end
  if ends < due then
    due = ends
    call('HSET', META, 'due', text(due))
    call('DEL', P .. 'quiet')
  end
end

-- Ends an operation: sweeps if there is something to sweep, else says that the next ones need not look.
local function settle()
  if backlog then slow().sweep() end
  if not backlog and due - 1 > NOW then
    call('SET', P .. 'quiet', floor ~= born and text(floor) or '0', 'PXAT', text(due - 1))
  end
end

-- Begins an operation of a joined instance: renews its lease and finds the dead.
-- Gives what to answer instead of going on, if anything.
local function enter(inc, lease)
  INC = inc
  local refusal = denied()
  if refusal then return refusal end
  if not call('ZSCORE', LEASES, inc) or not read_meta() then return { 'notjoined' } end
  renew(tonumber(lease))
  if NOW >= due and slow().find_dead() then return { 'again' } end
end

local function version() return call('INCR', P .. 'v:' .. INC) end

local function is_count(value)
  local number = tonumber(value)
  if not (number and (value == '0' or string.find(value, '^-?[1-9]%d*$'))) then return false end
  return number < EXACT and number > -EXACT or slow().is_count(value)
end

-- a + b - c, or nil if that is no i64.
local function sum(a, b, c)
  local x, y, z = tonumber(a), tonumber(b), tonumber(c)
  if x and x < EXACT and x > -EXACT and y < EXACT and y > -EXACT and z < EXACT and z > -EXACT then
    return text(x + y - z)
  end
  return slow().sum(a, b, c)
end

-- How a key stands, the dead collected: t, e, v (nil without a slice of the caller's), absent.
-- `bad` says what does not belong there, `again` that the budget ran out.
function load(key)
  local name = P .. 'k:' .. key
  local h = try('HMGET', name, 't', 'e', 'c', INC, 's')
  if h.err then return { key = key, name = name, bad = h.err } end
  local st = { key = key, name = name, t = h[1], e = h[2], v = h[4] or nil, s = h[5] or nil }
  local e, c = tonumber(h[2]), tonumber(h[3])
  if not (h[1] or h[2] or h[3]) then
    slow().missing(st)
  elseif not (h[1] and e and c) then
    st.bad, st.e = h[1] or 'an incomplete hash', e and h[2]
  elseif floor ~= born and e < floor then
    call('UNLINK', name)
    call('HDEL', P .. 'index', key)
    slow().missing(st)
  else
    if backlog and c < deaths then slow().collect(st, h[3]) end
    if st.s and not st.big and not st.again then slow().rebuild(st) end
    if not is_count(st.t) then st.bad = st.t
    elseif st.v and not is_count(st.v) then st.bad = st.v end
  end
  return st
end

-- Makes `t` the total and `v` the caller's slice.
local function store(st, t, v)
  if v == '0' then
    if st.absent then
      -- Nothing but an epoch that must not be forgotten.
      if tonumber(st.e) ~= floor then call('HSET', P .. 'tombs', st.key, st.e) end
      return
    end
    -- Of what was put back from before the data was lost, a part may have to be taken away later.
    if call('HEXISTS', st.name, 'o' .. INC) == 0 then
      if st.v then
        call('HDEL', st.name, INC)
        call('SREM', P .. 'keys:' .. INC, st.key)
        if call('HLEN', st.name) <= (st.s and 4 or 3) then return slow().vanish(st) end
      end
      call('HSET', st.name, 't', t)
      if st.s then call('HDEL', st.name, 's') end
      return
    end
  end
  if st.absent then
    call('HSET', st.name, 't', t, 'e', st.e, 'c', text(deaths), INC, v)
    call('HSET', P .. 'index', st.key, st.e)
    if st.tomb then call('HDEL', P .. 'tombs', st.key) end
  else
    call('HSET', st.name, 't', t, INC, v)
    if st.s then call('HDEL', st.name, 's') end
  end
  if not st.v then call('SADD', P .. 'keys:' .. INC, st.key) end
end
