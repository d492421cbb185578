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

-- Looks at the shape when an id comes without a record. Gives an error to answer instead of going on, if any:
-- the shape is another, or the record is lost and the batch may have been applied.
--
-- `field` of the shape is the generation of the records; `past` says that they would have been forgotten by now.
-- `resent` begins with '1' if an earlier attempt may have arrived. Where the space is one of several shards or expires,
-- ':' and what the shape has for `shards` follow.
local function admit(shape, field, generation, past, resent)
  local shards = string.match(resent, ':([%d/]+)$') or '1'
  local held = redis.pcall('HMGET', shape, 'layout', 'shards', field)
  if held.err then
    return held
  end
  if not held[1] then
    if string.match(shards, '^%d+') ~= '1' then
      -- Whether others agree is not found out here.
      return { err = 'UNSHAPED the copy of the shape is lost' }
    end
    -- The server has lost its data, or this is the first use.
    local made = redis.pcall('HSET', shape, 'layout', '1', 'shards', shards, field, generation)
    return type(made) == 'table' and made or nil
  end
  if held[1] ~= '1' or held[2] ~= shards then
    return { err = 'SHAPE ' .. held[1] .. ' ' .. (held[2] or '') .. ' ' .. shards }
  end
  if held[3] == generation then
    return nil
  end
  -- Records of an earlier generation were lost. They matter for as long as they would have been kept.
  if not held[3] or past then
    local kept = redis.pcall('HSET', shape, field, generation)
    return type(kept) == 'table' and kept or nil
  end
  if string.byte(resent) == 49 then
    return { err = 'FORGOTTEN the record of this writer is lost' }
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
