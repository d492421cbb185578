local out, from, sequence = { 0 }, 4, ARGV[3]
if calm and sequence ~= '' then
  local last = call('HGET', P .. 'inst:' .. INC, 'seq')
  if last and sequence - last <= 0 then calm = false end
end
if calm then
  local version, last = call('INCR', P .. 'v:' .. INC), #ARGV
  out[1] = version
  while from <= last do
    local name, count = P .. 'k:' .. ARGV[from], ARGV[from + 1]
    local epoch = try('HGET', name, 'e')
    if not (tonumber(epoch) and epoch - calm >= 0) then break end
    local total = try('HINCRBY', name, 't', count)
    if type(total) == 'table' then break end
    local slice = try('HINCRBY', name, INC, count)
    local added = type(slice) ~= 'table'
    -- It was 0, or not there.
    local fresh = added and slice - count == 0
    if not added or total >= EXACT or total <= -EXACT or slice >= EXACT or slice <= -EXACT then
      -- To be done exactly: as if nothing had been done.
      call('HINCRBY', name, 't', 0 - count)
      if fresh and call('SISMEMBER', P .. 'keys:' .. INC, ARGV[from]) == 0 then
        call('HDEL', name, INC)
      elseif added then
        call('HINCRBY', name, INC, 0 - count)
      end
      break
    end
    if fresh then call('SADD', P .. 'keys:' .. INC, ARGV[from]) end
    -- By far the most often; a table that grows takes its time.
    if last == 5 and sequence == '' then return { version, total, slice, epoch } end
    local at = #out
    out[at + 1], out[at + 2], out[at + 3] = total, slice, epoch
    from = from + 2
  end
  if from > last then
    if sequence ~= '' then
      call('HSET', P .. 'inst:' .. INC, 'seq', sequence)
      call('HDEL', P .. 'inst:' .. INC, 'refused')
    end
    return out
  end
end
