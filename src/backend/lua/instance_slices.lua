-- Lists the slices of a key.
-- ARGV  incarnation, lease in ms, key
-- Gives 'ok', then 3 for each slice: id, name or '', value; or 'x' with what is not ours.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
local st = load(ARGV[3])
if st.again then return { 'again' } end
if st.bad and call('TYPE', st.name).ok ~= 'hash' then return { 'x', st.bad } end
local out = { 'ok' }
if not st.absent then
  local all = call('HGETALL', st.name)
  for i = 1, #all, 2 do
    if string.find(all[i], '^%d') and all[i + 1] ~= '0' then
      local who, at = call('HMGET', P .. 'inst:' .. all[i], 'id', 'name'), #out
      out[at + 1], out[at + 2], out[at + 3] = who[1] or all[i], who[2] or '', all[i + 1]
    end
  end
end
settle()
return out
