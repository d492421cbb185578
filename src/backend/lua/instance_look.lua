-- Looks at keys for a process that is no member. Writes nothing.
-- ARGV  't' totals, then the keys | 's' slices, then the key
-- Gives 'ok', then 2 for each key: 'y' and the total, or 'x' not a number, with what was found; or 3 for each slice:
--       id, name or '', value; or 'x' with what is not ours.
local oldest, living, found = tonumber(call('HGET', META, 'floor')) or 0, {}, { 'ok' }

-- Whether an instance is joined, and its lease has not run out. Who is buried has no key of a lease; the set may be
-- lost.
local function lives(who)
  if living[who] == nil then
    living[who] = call('PTTL', P .. 'lease:' .. who) >= 0
      or (tonumber(call('ZSCORE', LEASES, who) or '') or 0) > NOW
  end
  return living[who]
end

-- The fields of a key under its current epoch, or nil and what does not belong there. Of a key whose total is no
-- number the slices can be listed.
local function fields_of(key)
  local name = P .. 'k:' .. key
  local held = try('HMGET', name, 't', 'e', 'c')
  if held.err then return nil, held.err end
  if not (held[1] or held[2] or held[3]) then return {} end
  local epoch = tonumber(held[2])
  if ARGV[1] == 't' then
    if not (held[1] and epoch and tonumber(held[3])) then return nil, held[1] or 'an incomplete hash' end
    if not is_count(held[1]) then return nil, held[1] end
  end
  if epoch and epoch < oldest then return {} end
  return call('HGETALL', name)
end

for i = 2, #ARGV do
  local fields, bad = fields_of(ARGV[i])
  local at = #found
  if ARGV[1] == 't' then
    found[at + 1], found[at + 2] = fields and 'y' or 'x', fields and slow().sum_of(fields, lives) or bad
  elseif bad then
    return { 'x', bad }
  else
    for f = 1, #fields, 2 do
      local who, value = fields[f], fields[f + 1]
      if string.find(who, '^%d') and value ~= '0' and lives(who) then
        local inst = call('HMGET', P .. 'inst:' .. who, 'id', 'name')
        found[at + 1], found[at + 2], found[at + 3] = inst[1] or who, inst[2] or '', value
        at = at + 3
      end
    end
  end
end
return found
