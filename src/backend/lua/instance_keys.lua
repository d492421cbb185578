  -- What becomes of a key and its epoch.

  -- Keeps the epoch of a key without a hash.
  function tools.keep_epoch(key, epoch)
    if tonumber(epoch) == base then return end
    if not tombs then
      tombs = '1'
      call('HSET', META, 'tombs', tombs)
      call('HSET', P .. 'tombs', ':', '1')
    end
    call('HSET', P .. 'tombs', key, epoch)
  end

  local function everybody_joins_anew()
    tools.bury_all(call('ZRANGEBYSCORE', LEASES, '-inf', '(+inf'))
    error(LOST)
  end

  -- The epochs of keys without a hash are lost: the space begins anew, so that claims tell what they were.
  function tools.lose_epochs()
    born = math.max(2 * MICROS, tonumber(call('HGET', META, 'epoch')) + 1)
    base, former, tombs = born, born, false
    call('HSET', META, 'born', text(born), 'base', text(born), 'former', text(born))
    call('HDEL', META, 'tombs')
    call('UNLINK', P .. 'tombs:old')
    everybody_joins_anew()
  end

  -- The hash of a key is lost, and the slices in it: its epoch is kept, and everybody joins anew.
  function tools.lose(key, epoch)
    call('HDEL', P .. 'index', key)
    tools.keep_epoch(key, epoch)
    everybody_joins_anew()
  end

  function tools.missing(st)
    if not st.blind then
      local epoch = call('HGET', P .. 'index', st.key)
      if epoch and tonumber(epoch) >= floor then tools.lose(st.key, epoch) end
      if epoch then call('HDEL', P .. 'index', st.key) end
    end
    if tombs then
      local kept = call('HMGET', P .. 'tombs', st.key, ':')
      if not kept[2] then tools.lose_epochs() end
      st.tomb = kept[1]
      if tombs == '2' and not st.tomb then st.tomb = call('HGET', P .. 'tombs:old', st.key) end
    end
    st.t, st.v, st.s, st.big, st.absent, st.e = '0', nil, nil, nil, true, st.tomb or text(base)
  end

  -- Deletes a key that has lost its last slice; its epoch must not be forgotten.
  function tools.vanish(st)
    call('UNLINK', st.name)
    call('HDEL', P .. 'index', st.key)
    tools.keep_epoch(st.key, st.e)
  end

  -- Deletes a key if it has lost its last slice. True if so.
  local function emptied(st)
    if call('HLEN', st.name) > (st.s and 4 or 3) then return false end
    tools.vanish(st)
    tools.missing(st)
    return true
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
        rest = clamp(rest)
        if show(rest) == '0' then
          call('HDEL', st.name, who)
          call('SREM', P .. 'keys:' .. who, st.key)
        else
          call('HSET', st.name, who, show(rest))
        end
      end
    end
    st.e = epoch
    if emptied(st) then return end
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

  -- Removes from a key the slices of all who are not joined, whoever knows of their death.
  local function audit(st)
    if budget <= 0 then
      st.again = true
      return
    end
    local all, gone = call('HGETALL', st.name), {}
    for i = 1, #all, 2 do
      local who = string.match(all[i], '^o?(%d+)$')
      if who and not call('ZSCORE', LEASES, who) then gone[#gone + 1] = all[i] end
    end
    for from = 1, #gone, 1000 do
      call('HDEL', st.name, unpack(gone, from, math.min(from + 999, #gone)))
    end
    budget = budget - #all / 2
    st.v = call('HGET', st.name, INC or '0') or nil
    if emptied(st) then return end
    call('HSET', st.name, 'c', text(deaths))
    tools.rebuild(st)
  end

  -- Removes from a key the slices of those who died after its last collection.
  function tools.collect(st, collected)
    if tonumber(collected) < verify then return audit(st) end
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
    if gone and emptied(st) then return end
    call('HSET', st.name, 'c', collected)
    if gone then reduce(st, pair(high, low)) end
  end

  -- Removes one incarnation's slice of a key, whatever the numbers.
  function tools.remove_slice(key, inc)
    local name = P .. 'k:' .. key
    local h = try('HMGET', name, 't', 'e', 's', inc)
    if h.err or not (h[1] and tonumber(h[2])) then return end
    if tonumber(h[2]) < floor then
      call('HDEL', P .. 'index', key)
      return call('UNLINK', name)
    end
    if not h[4] then return end
    local st = { key = key, name = name, t = h[1], e = h[2], s = h[3] }
    call('HDEL', name, inc, 'o' .. inc)
    if call('HLEN', name) <= (st.s and 4 or 3) then return tools.vanish(st) end
    reduce(st, parse(h[4]) or pair(0, 0))
  end

