-- Reads instance-aware counters as they are stored, for a copy. Follows the library; writes nothing.
-- ARGV  'l'                            what all have in common: 10 numbers, or none where nobody has ever joined
--       'm', 'leases' or 'dead', rank  some members: how many were looked at; 7 for each: incarnation, id, name or '',
--                                      first, lease and what is left of it (ms), '1' if its claims were refused
--       'c', keys                      how many keys; for each: epoch, number of slices, 4 for each: incarnation, value,
--                                      epoch and value of what was put back, or ''. '-1' slices where there are so many
--                                      that the hash is to be read page by page
-- Gives 'ok' first; or 'x' and what is lost or does not belong there.
local out, kind = { 'ok' }, ARGV[1]
local function push(...)
  for _, value in ipairs({ ... }) do out[#out + 1] = value end
end

if kind == 'l' then
  local meta = call(
    'HMGET', META, 'born', 'floor', 'base', 'former', 'epoch', 'last', 'age', 'turned', 'absence', 'tombs'
  )
  if not meta[1] and call('EXISTS', LEASES, P .. 'index') == 0 then return out end
  if not (meta[1] and call('ZSCORE', LEASES, ':') and call('HGET', P .. 'names', ':'))
    or meta[10] and not call('HGET', P .. 'tombs', ':') then
    return { 'x', 'a part of the instance-aware counters is lost' }
  end
  push(meta[1], meta[2] or '0', meta[3] or meta[1], meta[4] or meta[1], meta[5] or meta[1], meta[6] or '0')
  push(meta[7] or '0', meta[8] or '0', meta[9] or '604800000', call('HGET', P .. 'gone', ':') or '0')
  return out
end

if kind == 'm' then
  local from = tonumber(ARGV[3])
  local list = call('ZRANGE', P .. ARGV[2], text(from), text(from + 199))
  push(text(#list))
  for _, who in ipairs(list) do
    local inst = call('HMGET', P .. 'inst:' .. who, 'id', 'name', 'first', 'lease', 'late')
    if inst[1] then
      local left = 0
      if ARGV[2] == 'leases' then
        left = call('PTTL', P .. 'lease:' .. who) + 1
        if left <= 0 then left = math.max(0, tonumber(call('ZSCORE', LEASES, who)) - NOW) end
      end
      local late = inst[5] and call('GET', P .. 'v:' .. who) == '1'
      push(who, inst[1], inst[2] or '', inst[3] or who, inst[4] or '1', text(left), late and '1' or '')
    elseif ARGV[2] == 'leases' and who ~= ':' then
      return { 'x', 'the record of an instance is lost' }
    end
  end
  return out
end

-- How many fields of a counter are read at once.
local FIELDS = 500

local meta = call('HMGET', META, 'floor', 'base', 'born')
local floor, base, done = tonumber(meta[1]) or 0, meta[2] or meta[3] or '0', 0
push('0')
for i = 2, #ARGV do
  local key = ARGV[i]
  local name = P .. 'k:' .. key
  local length = try('HLEN', name)
  if type(length) == 'table' then return { 'x', length.err } end
  local paged = length > FIELDS
  local fields = paged and { 'e', call('HGET', name, 'e') or '' } or call('HGETALL', name)
  local epoch, slices, claims = nil, {}, {}
  for f = 1, #fields, 2 do
    local field, value = fields[f], fields[f + 1]
    if field == 'e' then
      epoch = tonumber(value) and value
    elseif string.find(field, '^o%d+$') then
      claims[string.sub(field, 2)] = value
    elseif string.find(field, '^%d+$') then
      if not is_count(value) then return { 'x', value } end
      slices[#slices + 1] = { field, value }
    end
  end
  if #fields > 0 and not epoch then return { 'x', 'an incomplete hash' } end
  if not epoch then
    local listed = call('HGET', P .. 'index', key)
    if listed and (tonumber(listed) or 0) >= floor then return { 'x', 'the slices of a counter are lost' } end
  elseif tonumber(epoch) < floor then
    epoch, slices, paged = nil, {}, false
  end
  if not epoch then
    epoch = call('HGET', P .. 'tombs', key) or call('HGET', P .. 'tombs:old', key) or base
  end
  push(epoch, paged and '-1' or text(#slices))
  for _, slice in ipairs(slices) do
    local claimed, value = string.match(claims[slice[1]] or '', '^(%d+) (%-?%d+)$')
    push(slice[1], slice[2], claimed or '', value or '')
  end
  done = done + 1
  -- The rest is for the next call.
  if #out > 2000 then break end
end
out[2] = text(done)
return out
