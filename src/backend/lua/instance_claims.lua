-- Puts claimed slices back; stands between instance.lua and the scripts that join.
-- Claims are 3 each: key, epoch, value. Appends 3 for each to `out`, as instance_read.lua.
local function put_back(st, value)
  if st.absent then
    store(st, value, value)
  else
    slow().add(st, value)
    call('HSET', st.name, INC, value)
    call('SADD', P .. 'keys:' .. INC, st.key)
  end
  st.t, st.v = st.absent and value or st.t, value
end

-- Whether a claim under `epoch` counts. A key that knows of no write since the store lost its data takes
-- over the epoch of an older claim, and drops what was put back under a lesser one.
local function admit(st, epoch)
  if epoch == st.e then return true end
  local claimed, current = tonumber(epoch), tonumber(st.e)
  if floor ~= born or current > born or claimed > born then return false end
  if claimed == born then return true end
  if current < born then
    if claimed < current then return false end
    slow().drop(st)
    st.t, st.s, st.big, st.absent = '0', nil, nil, true
  elseif not st.absent then
    call('HSET', st.name, 'e', epoch)
  end
  st.e = epoch
  return true
end

local function put_back_all(from, out)
  for i = from, #ARGV, 3 do
    local st, at = load(ARGV[i]), #out
    if not st.bad and not st.v and admit(st, ARGV[i + 1]) then put_back(st, ARGV[i + 2]) end
    if st.bad then
      out[at + 1], out[at + 2], out[at + 3] = 'x', st.bad, ''
    else
      out[at + 1], out[at + 2], out[at + 3] = st.t, st.v or '0', st.e
    end
  end
  return out
end
