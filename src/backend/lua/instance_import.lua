-- Writes instance-aware counters as they are stored, for a copy to a space that nobody uses. Follows the library. May be
-- repeated.
-- ARGV  'l', shards, then born, floor, base, former, epoch, last, age, turned, absence, age since which is known who is
--            gone                      begins the space
--       'm', 6 for each: id, name or '', first, lease and what is left of it (ms), '1' if its claims were refused
--                                      registers members: gives their incarnations
--       's', 6 for each: key, epoch, incarnation, value, epoch and value of what was put back, or ''
--                                      gives members their slices; those of a key follow each other
--       'e', 'tombs' or 'tombs:old', then keys and epochs
--       'g', ids and ages              who is gone
-- Gives 'ok', '1'; or 'ok', '0' where something else is there already.
local refusal = denied()
if refusal then return refusal end
local kind, other = ARGV[1], { 'ok', '0' }

if kind == 'l' then
  local held = call('HMGET', META, 'born', 'floor', 'base', 'former')
  if held[1] then
    for i = 1, 4 do
      if held[i] ~= ARGV[i + 2] then return other end
    end
    return { 'ok', '1' }
  end
  if call('EXISTS', LEASES, P .. 'index', P .. 'tombs', P .. 'names') > 0 then return other end
  -- Whether others agree is not found out here.
  if ARGV[2] ~= '1' and call('EXISTS', string.sub(P, 1, -3) .. 'shape') == 0 then
    return { err = 'UNSHAPED the copy of the shape is lost' }
  end
  -- Odd, as the epochs of changes are that follow.
  local epoch = tonumber(ARGV[7])
  if epoch % 2 == 0 then epoch = epoch - 1 end
  wrote = true
  call('HSET', META, 'shape', '1 ' .. ARGV[2], 'born', ARGV[3], 'floor', ARGV[4], 'base', ARGV[5], 'former', ARGV[6],
    'epoch', text(epoch), 'last', ARGV[8], 'age', ARGV[9], 'turned', ARGV[10], 'absence', ARGV[11], 'seen', text(NOW),
    'deaths', text(MICROS))
  call('ZADD', LEASES, '+inf', ':')
  call('HSET', P .. 'names', ':', '1')
  call('HSET', P .. 'gone', ':', ARGV[12])
  return { 'ok', '1' }
end

if not read_meta() then return other end

if kind == 'm' then
  local out = { 'ok', '1' }
  for i = 2, #ARGV, 6 do
    local id, name, first, lease, left = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
    local who = call('HGET', P .. 'names', 'i:' .. id)
    wrote = true
    if not (who and call('ZSCORE', LEASES, who)) then
      who = text(math.max(MICROS, (tonumber(call('HGET', META, 'last')) or 0) + 1))
      call('HSET', META, 'last', who)
      call('SET', P .. 'v:' .. who, '1')
      call('SADD', P .. 'keys:' .. who, ':')
      call('HDEL', P .. 'gone', id)
      call('HSET', P .. 'inst:' .. who, 'id', id, 'first', first, 'lease', lease, 'seq', '0')
      call('HSET', P .. 'names', 'i:' .. id, who)
      if ARGV[i + 5] == '1' then call('HSET', P .. 'inst:' .. who, 'late', '1') end
      if name ~= '' then
        call('HSET', P .. 'inst:' .. who, 'name', name)
        -- Of two shards, one may have had an older namesake.
        local holder = call('HGET', P .. 'names', 'n:' .. name)
        local held = holder and call('HGET', P .. 'inst:' .. holder, 'first')
        if not held or tonumber(held) < tonumber(first) then call('HSET', P .. 'names', 'n:' .. name, who) end
      end
    end
    local ends = NOW + left
    call('ZADD', LEASES, text(ends), who)
    if left > 1 then
      call('SET', P .. 'lease:' .. who, lease, 'PXAT', text(ends - 1))
    else
      call('DEL', P .. 'lease:' .. who)
    end
    if ends < due then
      due = ends
      call('HSET', META, 'due', text(due))
    end
    out[#out + 1] = who
  end
  call('DEL', P .. 'quiet')
  return out
end

if kind == 's' then
  local st, joined = nil, {}
  local function is_joined(who)
    if joined[who] == nil then joined[who] = call('ZSCORE', LEASES, who) and true or false end
    return joined[who]
  end
  -- The total is the sum of what is there.
  local function finish()
    if not st then return end
    if st.absent then slow().keep_epoch(st.key, st.e) else slow().rebuild(st) end
  end
  for i = 2, #ARGV, 6 do
    local key, epoch, who = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if not st or st.key ~= key then
      finish()
      st = load(key)
      if st.again then return { 'again' } end
      if st.bad then return { 'x', st.bad } end
      if (st.tomb or not st.absent) and st.e ~= epoch then return other end
      st.e = epoch
    end
    if is_joined(who) then
      wrote = true
      if st.absent then
        call('HSET', P .. 'index', key, epoch)
        call('HSET', st.name, 't', '0', 'e', epoch, 'c', text(deaths))
        if st.tomb then
          call('HDEL', P .. 'tombs', key)
          if tombs == '2' then call('HDEL', P .. 'tombs:old', key) end
        end
        st.absent = false
      end
      call('HSET', st.name, who, ARGV[i + 3])
      if ARGV[i + 4] ~= '' then call('HSET', st.name, 'o' .. who, ARGV[i + 4] .. ' ' .. ARGV[i + 5]) end
      call('SADD', P .. 'keys:' .. who, key)
    end
  end
  finish()
elseif kind == 'e' then
  for i = 3, #ARGV, 2 do
    local key, epoch = ARGV[i], ARGV[i + 1]
    local kept = call('HGET', P .. 'k:' .. key, 'e') or call('HGET', P .. 'tombs', key)
      or call('HGET', P .. 'tombs:old', key)
    if kept and kept ~= epoch then return other end
    if not kept and tonumber(epoch) ~= base then
      wrote = true
      if not tombs or ARGV[2] == 'tombs:old' and tombs ~= '2' then
        tombs = ARGV[2] == 'tombs:old' and '2' or '1'
        call('HSET', META, 'tombs', tombs)
        call('HSET', P .. 'tombs', ':', '1')
      end
      call('HSET', P .. ARGV[2], key, epoch)
    end
  end
else
  for i = 2, #ARGV, 2 do
    if not call('HGET', P .. 'names', 'i:' .. ARGV[i]) then
      wrote = true
      call('HSET', P .. 'gone', ARGV[i], ARGV[i + 1])
    end
  end
end
return { 'ok', '1' }
