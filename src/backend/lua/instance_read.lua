-- Reads keys. Follows instance_read_quick.lua, which has answered for the keys before ARGV[from].
-- ARGV  incarnation, lease in ms, then the keys
-- Gives version, then 3 for each key: total, slice, epoch; or 'x' not a number, with what was found.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
if from == 3 then out[1] = version() end
for i = from, #ARGV do
  local st, at = load(ARGV[i]), #out
  if st.again then return { 'again' } end
  if st.bad then
    out[at + 1], out[at + 2], out[at + 3] = 'x', st.bad, ''
  else
    out[at + 1], out[at + 2], out[at + 3] = st.t, st.v or '0', st.e
  end
end
settle()
return out
