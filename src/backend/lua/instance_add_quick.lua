local out, from, sequence = { 0 }, 4, ARGV[3]
-- One addition undoes itself; of several, all must be possible before the first is done.
if calm and #ARGV > 5 then
  local refusal = denied()
  if refusal then return refusal end
end
-- Before the additions: what is added and not recorded would be added again.
if calm and KEYS[3] then
  call('HSET', KEYS[3], lane_id, lane_sequence .. ' ' .. lane_age)
  lane_claimed = true
end
local function answered(answer)
  if lane_claimed then
    local kept = try('HSET', KEYS[3], lane_id, lane_sequence .. ' ' .. lane_age .. '\n' .. cmsgpack.pack(answer))
    if type(kept) == 'table' then return { err = 'PARTLY ' .. kept.err } end
  end
  return answer
end
if calm and sequence ~= '' then
  local inst = P .. 'inst:' .. INC
  local guard = call('HMGET', inst, 'seq', 'refused')
  if not guard[1] or sequence - guard[1] <= 0 or guard[2] then
    calm = false
  else
    -- Before the additions: what is added and not recorded would be added again.
    claimed = guard[1]
    call('HSET', inst, 'seq', sequence)
  end
end
if calm then
  local version, last = call('INCR', P .. 'v:' .. INC), #ARGV
  out[1] = version
  -- The count is lost: the library is needed.
  if version == 1 then calm = call('DEL', P .. 'v:' .. INC) and false end
  while calm and from <= last do
    local name, count = P .. 'k:' .. ARGV[from], ARGV[from + 1]
    local epoch = try('HGET', name, 'e')
    if not (tonumber(epoch) and epoch - calm >= 0) then break end
    local total = try('HINCRBY', name, 't', count)
    if type(total) == 'table' then break end
    local slice = try('HINCRBY', name, INC, count)
    local added = type(slice) ~= 'table'
    -- It was 0, or not there.
    local fresh = added and slice - count == 0
    local listed = not fresh or try('SADD', P .. 'keys:' .. INC, ARGV[from])
    if not added or type(listed) == 'table' or total >= EXACT or total <= -EXACT or slice >= EXACT or slice <= -EXACT then
      -- To be done exactly, or not at all: as if nothing had been done.
      call('HINCRBY', name, 't', 0 - count)
      if added then call('HINCRBY', name, INC, 0 - count) end
      break
    end
    wrote = true
    if slice == 0 and try('HEXISTS', name, 'o' .. INC) == 0 and try('HDEL', name, INC) == 1 then
      try('SREM', P .. 'keys:' .. INC, ARGV[from])
      local left = try('HLEN', name)
      if total == 0 and type(left) == 'number' and left <= 3 then
        if epoch ~= try('HGET', META, 'base') then
          if try('HSETNX', META, 'tombs', '1') == 1 then try('HSET', P .. 'tombs', ':', '1') end
          try('HSET', P .. 'tombs', ARGV[from], epoch)
        end
        try('UNLINK', name)
        try('HDEL', P .. 'index', ARGV[from])
      end
    end
    -- By far the most often; a table that grows takes its time.
    if last == 5 and sequence == '' then return answered({ version, total, slice, epoch }) end
    local at = #out
    out[at + 1], out[at + 2], out[at + 3] = total, slice, epoch
    from = from + 2
  end
  if from > last then return answered(out) end
  if lane_claimed and not wrote then
    call('HSET', KEYS[3], lane_id, lane_held)
    lane_claimed = false
  end
end
