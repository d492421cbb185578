local out, from = { 'ok' }, 3
if calm then
  out[2] = call('INCR', P .. 'v:' .. INC)
  while from <= #ARGV do
    local name = P .. 'k:' .. ARGV[from]
    local epoch = epoch_of(name)
    local total = epoch and call('HGET', name, 't')
    -- A total that was clamped is longer.
    if not total or #total > 15 or not tonumber(total) then break end
    local at = #out
    out[at + 1], out[at + 2], out[at + 3] = total, call('HGET', name, INC) or '0', epoch
    from = from + 1
  end
  if from > #ARGV then return out end
end
