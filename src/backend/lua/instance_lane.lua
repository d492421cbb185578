-- What the client sent twice gets the first answer twice. Follows instance_end.lua and records.lua.
local LANE_LIFE = 3600
local id, sequence = table.remove(ARGV), table.remove(ARGV)
local both = call('HMGET', KEYS[3], id, ':clock')
local held = both[1]
local last = held and string.match(held, '^%d+')
if last and tonumber(last) >= tonumber(sequence) then return first_answer(held, sequence) end
local _, age, clock = clock_of(both[2])
if not held then sweep(KEYS[3], LANE_LIFE, age) end
-- Before the change: one that is made and not recorded would be made again.
call('HSET', KEYS[3], id, sequence .. ' ' .. age, ':clock', clock or both[2])
local answer = run()
if not answer.err then
  wrote = true
  local kept = try('HSET', KEYS[3], id, sequence .. ' ' .. age .. '\n' .. cmsgpack.pack(answer))
  if type(kept) == 'table' then return { err = 'PARTLY ' .. kept.err } end
elseif not wrote then
  call('HSET', KEYS[3], id, unclaimed(held, sequence, age))
end
return answer
