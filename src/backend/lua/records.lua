-- The records of writers and lanes in a hash: see guard.lua, which it precedes, as it does instance_lane.lua.

local LONGEST_STEP = 60
-- How many records each new one looks at.
local LOOKS = 4

-- The hash's generation and age, and its clock's text if that has to be written.
local function clock_of(kept)
  local time = redis.call('TIME')
  local generation, seen, age = string.match(kept or '', '^(%d+) (%d+) (%d+)$')
  if not generation then
    generation, age = time[1] .. string.format('%06d', time[2]), '0'
  elseif seen == time[1] then
    return generation, age
  else
    local step = math.max(0, math.min(tonumber(time[1]) - tonumber(seen), LONGEST_STEP))
    age = string.format('%.0f', tonumber(age) + step)
  end
  return generation, age, generation .. ' ' .. time[1] .. ' ' .. age
end

-- Forgets some of the records that nobody used for `life` seconds of the hash's age.
local function sweep(records, life, age)
  local some = redis.pcall('HRANDFIELD', records, LOOKS, 'WITHVALUES')
  for i = 1, #some, 2 do
    local used = string.match(some[i + 1], '^%d+ (%d+)')
    if some[i] ~= ':clock' and used and age - used > life then
      redis.pcall('HDEL', records, some[i])
    end
  end
end

-- The answer of a lane that was given to `sequence`, once that is not above the record's.
local function first_answer(held, sequence)
  local packed = string.match(held, '^%d+') == sequence and string.match(held, '^[^\n]*\n(.*)$')
  return packed and cmsgpack.unpack(packed) or { err = 'PARTLY the answer is not kept any more' }
end

-- The record of a batch that did nothing: what it was before, or that the sequence has not come yet.
local function unclaimed(held, sequence, age)
  return held or string.format('%.0f', tonumber(sequence) - 1) .. ' ' .. age
end
