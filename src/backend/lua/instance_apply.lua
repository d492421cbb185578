-- Adds to, sets, or replaces slices.
-- ARGV  incarnation, lease in ms, sequence or '', then 5 for each write:
--       key, 'a' add | 't' set the total | 's' set the slice, count, condition '' = ! < >, operand
-- Gives 'ok', version, '1' if replayed, then 7 for each write: 'y' written | 'n' condition failed |
--       'o' overflow | 'x' not a number, with what was found; old total, slice, epoch; new ones.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
if backlog and slow().prepare(4, 5) then return { 'again' } end

local inst, sequence = P .. 'inst:' .. INC, ARGV[3]
local replayed, refused = false, {}
if sequence ~= '' then
  local guard = call('HMGET', inst, 'seq', 'refused')
  local last = tonumber(guard[1] or '0')
  replayed = tonumber(sequence) <= last
  if tonumber(sequence) == last and guard[2] then refused = cmsgpack.unpack(guard[2]) end
end

local out, at, any = { 'ok', version(), replayed and '1' or '0' }, 3, false
for i = 4, #ARGV, 5 do
  local st, change, count = load(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local t, v, kind = st.t, st.v or '0', 'y'
  local nt, nv, ne = t, v, st.e
  local item = (i + 1) / 5
  if replayed then
    local was = refused[item]
    if was then kind, t = was[1], was[2] or t
    elseif st.bad then kind, t = 'x', st.bad end
  elseif st.bad and not (change == 't' and ARGV[i + 3] == '') then
    kind, t = 'x', st.bad
    refused[item], any = { 'x', st.bad }, true
  elseif ARGV[i + 3] ~= '' and not slow().holds(ARGV[i + 3], change == 's' and v or t, ARGV[i + 4]) then
    kind = 'n'
  elseif change == 't' then
    slow().drop(st)
    if st.bad then t, v = '0', '0' end
    nt, nv, ne = count, count, text(call('HINCRBY', KEYS[1], 'epoch', 1))
    store({ key = st.key, name = st.name, absent = true, tomb = st.tomb, e = ne }, nt, nv)
  else
    nt = sum(st.big or t, count, change == 's' and v or '0')
    nv = change == 's' and count or sum(v, count, '0')
    if nt and nv then
      store(st, nt, nv)
    else
      kind = 'o'
      refused[item], any = { 'o' }, true
    end
  end
  out[at + 1], out[at + 2], out[at + 3], out[at + 4] = kind, t or '0', v, st.e or '0'
  out[at + 5], out[at + 6], out[at + 7] = nt or '0', nv or '0', ne or '0'
  at = at + 7
end

if sequence ~= '' and not replayed then
  call('HSET', inst, 'seq', sequence)
  if any then
    call('HSET', inst, 'refused', cmsgpack.pack(refused))
  else
    call('HDEL', inst, 'refused')
  end
end
if backlog then slow().sweep() end
return out
