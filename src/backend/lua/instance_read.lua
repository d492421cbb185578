-- Reads keys.
-- ARGV  incarnation, lease in ms, then the keys
-- Gives 'ok', version, then 4 for each key: 'y' | 'x' not a number, with what was found; total, slice,
--       epoch.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
local out = { 'ok', version() }
for i = 3, #ARGV do
  local st, at = load(ARGV[i]), #out
  if st.again then return { 'again' } end
  out[at + 1], out[at + 2] = st.bad and 'x' or 'y', st.bad or st.t
  out[at + 3], out[at + 4] = st.v or '0', st.e or '0'
end
if backlog then slow().sweep() end
return out
