-- Puts claimed slices back; stands between instance.lua and the scripts that join.
-- Claims are 3 each: key, epoch, value. Appends 3 for each to `out`, as instance_read.lua.
local function put_back(st, epoch, value)
  if st.absent then
    store(st, value, value)
    st.t = value
  else
    slow().add(st, value)
    call('HSET', st.name, INC, value)
    call('SADD', P .. 'keys:' .. INC, st.key)
  end
  if tonumber(epoch) < born then call('HSET', st.name, 'o' .. INC, epoch .. ' ' .. value) end
  st.v = value
end

-- Whether a claim under `epoch` counts. Of a key without a change since the store lost its data only claims
-- can tell what it was: it takes over the latest change that one of them knows of.
local function admit(st, epoch)
  if epoch == st.e then return true end
  local claimed, current = tonumber(epoch), tonumber(st.e)
  -- A key that has known no epoch since before the last turn.
  if current == base and claimed == former then return true end
  if floor > born or claimed < floor or current > born or claimed > born then return false end
  if current % 2 == 1 and claimed < current then return false end
  if claimed % 2 == 1 then
    if st.absent then st.e = epoch else slow().take_over(st, epoch) end
  end
  return true
end

-- The claims of one who was away for too long are only looked at.
local function put_back_all(from, out, late)
  for i = from, #ARGV, 3 do
    local st, at = load(ARGV[i]), #out
    if not (st.bad or st.v or late) and admit(st, ARGV[i + 1]) then
      wrote = true
      if ARGV[i + 2] ~= '0' then
        put_back(st, ARGV[i + 1], ARGV[i + 2])
      elseif st.absent then
        store(st, '0', '0')
      end
    end
    if st.bad then
      out[at + 1], out[at + 2], out[at + 3] = 'x', st.bad, ''
    else
      out[at + 1], out[at + 2], out[at + 3] = st.t, st.v or '0', st.e
    end
  end
  return out
end
