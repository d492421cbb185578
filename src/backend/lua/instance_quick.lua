-- The way of an operation while nobody is dead and no lease may have run out. Follows instance_names.lua;
-- before the library, which takes as long to define as this to do. `calm` is the floor that epochs must
-- reach, or false when the library is needed.
local INC, EXACT, calm, known = ARGV[1], 9007199254740992, false, true
if KEYS[3] then
  -- A lane that is known, and whose clock need not move: see instance_lane.lua.
  local both = call('HMGET', KEYS[3], lane_id, ':clock')
  local last = both[1] and string.match(both[1], '^(%d+) ')
  local seen, age = string.match(both[2] or '', '^%d+ (%d+) (%d+)$')
  known = last and seen and tonumber(last) < tonumber(lane_sequence) and seen == call('TIME')[1]
  lane_held, lane_age = both[1], age
end
if known then
  local lease, full = P .. 'lease:' .. INC, ARGV[2] - 1
  local left = call('PTTL', lease)
  if left >= 0 and left <= full then
    calm = call('GET', P .. 'quiet')
    if calm and left < full then call('PEXPIRE', lease, full) end
  end
end
