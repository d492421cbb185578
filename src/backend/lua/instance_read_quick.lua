local out, from = { 0 }, 3
if calm then
  out[1] = call('INCR', P .. 'v:' .. INC)
  if out[1] == 1 then calm = call('DEL', P .. 'v:' .. INC) and false end
  while calm and from <= #ARGV do
    local name = P .. 'k:' .. ARGV[from]
    local epoch = try('HGET', name, 'e')
    if not (tonumber(epoch) and epoch - calm >= 0) then break end
    local total = call('HGET', name, 't')
    -- A total that was clamped is longer.
    if not (tonumber(total) and #total < 16) then break end
    local at = #out
    out[at + 1], out[at + 2], out[at + 3] = total, call('HGET', name, INC) or '0', epoch
    from = from + 1
  end
  if from > #ARGV then return out end
end
