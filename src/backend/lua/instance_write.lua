-- Writes under the guard of the incarnation; stands between instance.lua and the scripts that write.
local replayed, refused, refuses = false, {}, false

-- Finds out whether the batch was applied before.
local function begin(sequence)
  if sequence == '' or claimed then return end
  local guard = call('HMGET', P .. 'inst:' .. INC, 'seq', 'refused')
  -- The record of this incarnation is lost: what it counted goes with it, and comes back when it joins anew.
  if not guard[1] then
    slow().bury({ INC })
    error(LOST)
  end
  local last = tonumber(guard[1])
  replayed = tonumber(sequence) <= last
  if tonumber(sequence) == last and guard[2] then refused = cmsgpack.unpack(guard[2]) end
  if not replayed then
    claimed = guard[1]
    call('HSET', P .. 'inst:' .. INC, 'seq', sequence)
    if guard[2] then call('HDEL', P .. 'inst:' .. INC, 'refused') end
  end
end

-- Does one item of the batch: changes 'a' add | 't' set the total | 's' set the slice | 'd' remove the key |
-- 'r' remove the slice | 'w' add as much as the total has room for, from `least` to `most`; conditions '' = ! < >
-- <= >=.
-- Gives 'y' written | 'n' condition failed | 'o' overflow | 'x' not a number, with what was found; old total,
-- slice, epoch; new ones.
local function write(item, key, change, count, condition, operand, least, most)
  -- A new slice tells of a lost key; nothing else needs to ask.
  local st = load(key, change == 'a' and condition == '' and count ~= '0' and not replayed)
  local t, v, e = st.t or '0', st.v or '0', st.e or '0'
  local was = refused[item]
  if replayed then
    if was then return was[1], was[2] or t, v, e, t, v, e end
    if st.bad then return 'x', st.bad, v, e, t, v, e end
    return 'y', t, v, e, t, v, e
  end
  local whole, own = change == 't' or change == 'd', change == 's' or change == 'r'
  if st.bad and not (whole and condition == '') then
    refused[item], refuses = { 'x', st.bad }, true
    return 'x', st.bad, v, e, t, v, e
  end
  if condition ~= '' and not slow().holds(condition, own and v or t, operand) then
    return 'n', t, v, e, t, v, e
  end
  if whole then
    wrote, replaced = true, true
    slow().drop(st)
  end
  if change == 'd' then
    local epoch = new_epoch()
    slow().keep_epoch(st.key, epoch)
    if not st.bad then return 'y', t, v, e, '0', '0', epoch end
    refused[item], refuses = { 'x', st.bad }, true
    return 'x', st.bad, v, e, '0', '0', epoch
  elseif change == 't' then
    if st.bad then
      t, v = '0', '0'
      call('SREM', P .. 'keys:' .. INC, st.key)
    end
    local epoch = new_epoch()
    store({ key = st.key, name = st.name, absent = true, tomb = st.tomb, e = epoch }, count, count)
    return 'y', t, v, e, count, count, epoch
  end
  if change == 'w' then
    count = slow().fitting(t, count, least, most)
    if count == '0' then return 'y', t, v, e, t, v, e end
  end
  local nt = sum(st.big or t, count, own and v or '0')
  local nv = own and count or sum(v, count, '0')
  if not (nt and nv) then
    refused[item], refuses = { 'o' }, true
    return 'o', t, v, e, t, v, e
  end
  wrote = true
  if change == 'r' then
    if st.v then
      slow().remove_slice(st.key, INC)
      call('SREM', P .. 'keys:' .. INC, st.key)
    end
    return 'y', t, v, e, nt, '0', e
  end
  if change == 's' and not st.absent then call('HDEL', st.name, 'o' .. INC) end
  store(st, nt, nv)
  return 'y', t, v, e, nt, nv, e
end

-- Remembers the batch.
local function finish(sequence)
  if sequence == '' or replayed then return end
  if refuses then call('HSET', P .. 'inst:' .. INC, 'refused', cmsgpack.pack(refused)) end
  claimed = nil
end
