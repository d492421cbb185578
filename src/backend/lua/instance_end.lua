end

if not KEYS[3] then return main() end
-- What the client sent twice gets the first answer twice.
local sequence = tonumber(table.remove(ARGV))
local held = call('GET', KEYS[3])
if held then
  local last = cmsgpack.unpack(held)
  if last[1] >= sequence then return last[2] end
end
local answer = main()
call('SET', KEYS[3], cmsgpack.pack({ sequence, answer }), 'PX', 3600000)
return answer
