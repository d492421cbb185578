-- The operation of a lane, which gets the first answer again when it is sent again. Follows instance_end.lua and
-- records.lua. An answer that calls for another attempt is not kept. What instance_add_quick.lua has begun is claimed.
local LANE_LIFE = 3600
local lanes, shape, id, sequence = KEYS[3], KEYS[4], lane_id, lane_sequence
if not lane_claimed then
  local both = call('HMGET', lanes, id, ':clock')
  lane_held = both[1]
  local last = lane_held and string.match(lane_held, '^%d+')
  if last and tonumber(last) >= tonumber(sequence) then return first_answer(lane_held, sequence) end
  local generation, age, clock = clock_of(both[2])
  if not lane_held then
    local refused = admit(shape, 'lanes', generation, tonumber(age) > LANE_LIFE, lane_resent)
    if refused then return refused end
    sweep(lanes, LANE_LIFE, age)
  end
  lane_age = age
  -- Before the change: one that is made and not recorded would be made again.
  call('HSET', lanes, id, sequence .. ' ' .. age, ':clock', clock or both[2])
end
local answer = run()
if answer[1] == 'again' or answer[1] == lost_answer or answer.err and not wrote then
  call('HSET', lanes, id, unclaimed(lane_held, sequence, lane_age))
elseif not answer.err then
  wrote = true
  local kept = try('HSET', lanes, id, sequence .. ' ' .. lane_age .. '\n' .. cmsgpack.pack(answer))
  if type(kept) == 'table' then return { err = 'PARTLY ' .. kept.err } end
end
return answer
