local out, from, guarded = { 'ok', false, '0' }, 4, ARGV[3] ~= ''
if calm and guarded then
  local last = call('HGET', P .. 'inst:' .. INC, 'seq')
  if last and tonumber(ARGV[3]) <= tonumber(last) then calm = nil end
end
if calm then
  out[2] = call('INCR', P .. 'v:' .. INC)
  while from <= #ARGV do
    local name, count = P .. 'k:' .. ARGV[from], ARGV[from + 1]
    local epoch = epoch_of(name)
    if not epoch then break end
    local total = redis.pcall('HINCRBY', name, 't', count)
    if type(total) == 'table' then break end
    local slice = redis.pcall('HINCRBY', name, INC, count)
    local added = type(slice) ~= 'table'
    -- It was 0, or not there.
    local fresh = added and slice == tonumber(count)
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
    local at = #out
    out[at + 1], out[at + 2], out[at + 3] = total, slice, epoch
    from = from + 2
  end
  if from > #ARGV then
    if guarded then
      call('HSET', P .. 'inst:' .. INC, 'seq', ARGV[3])
      call('HDEL', P .. 'inst:' .. INC, 'refused')
    end
    return out
  end
end
