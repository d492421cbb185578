-- The way of an operation while nobody is dead and no lease may have run out. Follows instance_names.lua;
-- before the library, which takes as long to define as this to do. `calm` is the floor that epochs must
-- reach, or nil when the library is needed.
local INC, EXACT = ARGV[1], 9007199254740992
local calm
if not KEYS[2] then
  local lease, full = P .. 'lease:' .. INC, ARGV[2] - 1
  local left = call('PTTL', lease)
  if left >= 0 and left <= full then
    calm = tonumber(call('GET', P .. 'quiet') or nil)
    if calm and left < full then call('PEXPIRE', lease, full) end
  end
end

-- The epoch of a key that is as it should be.
local function epoch_of(name)
  local epoch = redis.pcall('HGET', name, 'e')
  local number = type(epoch) == 'string' and tonumber(epoch)
  return number and number >= calm and epoch
end
