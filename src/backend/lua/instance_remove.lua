-- Removes keys, or the caller's slices of them.
-- ARGV  incarnation, lease in ms, 't' whole keys | 's' slices, then the keys
-- Gives 'ok', version, then 7 for each key, as instance_apply.lua.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
if backlog and slow().prepare(4, 1) then return { 'again' } end

local out, at = { 'ok', version() }, 2
for i = 4, #ARGV do
  local st, kind = load(ARGV[i]), 'y'
  local t, v = st.t, st.v or '0'
  local nt, nv, ne = '0', '0', st.e
  if st.bad then kind, t = 'x', st.bad end
  if ARGV[3] == 't' then
    wrote, replaced = true, true
    slow().drop(st)
    ne = new_epoch()
    slow().keep_epoch(st.key, ne)
  elseif kind == 'y' then
    nt = sum(st.big or t, '0', v)
    if not nt then
      kind, nt, nv = 'o', t, v
    elseif st.v then
      wrote = true
      slow().remove_slice(st.key, INC)
      call('SREM', P .. 'keys:' .. INC, st.key)
    end
  end
  out[at + 1], out[at + 2], out[at + 3], out[at + 4] = kind, t or '0', v, st.e or '0'
  out[at + 5], out[at + 6], out[at + 7] = nt, nv, ne or '0'
  at = at + 7
end
settle()
return out
