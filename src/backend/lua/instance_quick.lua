-- The way of an operation while nobody is dead and no lease may have run out. Follows instance_names.lua;
-- before the library, which takes as long to define as this to do. `calm` is the floor that epochs must
-- reach, or false when the library is needed.
local INC, EXACT, calm = ARGV[1], 9007199254740992, false
if not KEYS[3] then
  local lease, full = P .. 'lease:' .. INC, ARGV[2] - 1
  local left = call('PTTL', lease)
  if left >= 0 and left <= full then
    calm = call('GET', P .. 'quiet')
    if calm and left < full then call('PEXPIRE', lease, full) end
  end
end
