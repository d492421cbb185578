-- The operation of a lane, which gets the first answer again when it is sent again. Follows instance_end.lua and
-- records.lua. An answer that calls for another attempt is not kept.
local LANE_LIFE = 3600
local lanes, shape = KEYS[3], KEYS[4]
local resent, id, sequence = table.remove(ARGV), table.remove(ARGV), table.remove(ARGV)
local both = call('HMGET', lanes, id, ':clock')
local held = both[1]
local last = held and string.match(held, '^%d+')
if last and tonumber(last) >= tonumber(sequence) then return first_answer(held, sequence) end
local generation, age, clock = clock_of(both[2])
if not held then
  local refused = admit(shape, 'lanes', generation, tonumber(age) > LANE_LIFE, resent == '1' and META)
  if refused then return refused end
  sweep(lanes, LANE_LIFE, age)
end
-- Before the change: one that is made and not recorded would be made again.
call('HSET', lanes, id, sequence .. ' ' .. age, ':clock', clock or both[2])
local answer = run()
if answer[1] == 'again' or answer[1] == lost_answer or answer.err and not wrote then
  call('HSET', lanes, id, unclaimed(held, sequence, age))
elseif not answer.err then
  wrote = true
  local kept = try('HSET', lanes, id, sequence .. ' ' .. age .. '\n' .. cmsgpack.pack(answer))
  if type(kept) == 'table' then return { err = 'PARTLY ' .. kept.err } end
end
return answer
