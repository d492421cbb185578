-- Makes an instance a member, with the first part of its claims. Follows instance_claims.lua.
-- ARGV  id, name or '', lease in ms, first incarnation or '', longest absence in ms, shards, then the claims
-- Gives 'ok', incarnation, the space's born (see instance_names.lua), then the claims' standings; or 'replaced'; or 'again'.
-- Layout and shards: a copy of what shape.lua makes, for a server that lost that key.
local SHAPE = '1 ' .. ARGV[6]
local id, name, lease, first, absence = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
lost_answer = 'again'
local refusal = denied()
if refusal then return refusal end
-- Whoever is registered, be it that a part of the records is lost.
local function everybody()
  local list, known = {}, {}
  local function add(inc)
    if inc ~= ':' and not known[inc] and not call('ZSCORE', P .. 'dead', inc) then
      known[inc] = true
      list[#list + 1] = inc
    end
  end
  for _, inc in ipairs(call('ZRANGE', LEASES, 0, -1)) do add(inc) end
  local names = call('HGETALL', P .. 'names')
  for i = 1, #names, 2 do
    if names[i] ~= ':' then add(names[i + 1]) end
  end
  return list
end

if not read_meta() then
  -- Whether others agree is not found out here.
  if ARGV[6] ~= '1' and call('EXISTS', string.sub(P, 1, -3) .. 'shape') == 0 then
    return { err = 'UNSHAPED the copy of the shape is lost' }
  end
  local now = text(2 * MICROS)
  call('HSET', META, 'shape', SHAPE, 'born', now, 'epoch', text(2 * MICROS - 1), 'floor', '0', 'base', now,
    'former', now, 'deaths', text(MICROS))
  if call('EXISTS', P .. 'tombs', P .. 'tombs:old') > 0 then
    call('HSET', META, 'tombs', '2')
    call('HSET', P .. 'tombs', ':', '1')
  end
  read_meta()
  slow().bury_all(everybody())
  -- Of what there was, nothing is known.
  slow().look_through_all()
else
  local held = call('HGET', META, 'shape')
  if held ~= SHAPE then return { err = 'SHAPE ' .. (held or ' ') .. ' ' .. ARGV[6] } end
  if not call('ZSCORE', LEASES, ':') then
    -- Nobody is known to live: whose slices there are, they come back when their owners join anew.
    slow().bury_all(everybody())
    slow().look_through_all()
  elseif call('HGET', P .. 'names', ':') == false then
    for _, list in ipairs({ call('ZRANGE', P .. 'dead', 0, 999), call('ZRANGEBYSCORE', LEASES, '-inf', '(+inf') }) do
      for _, inc in ipairs(list) do
        local known = call('HMGET', P .. 'inst:' .. inc, 'id', 'name')
        if known[1] then call('HSET', P .. 'names', 'i:' .. known[1], inc) end
        if known[2] then call('HSET', P .. 'names', 'n:' .. known[2], inc) end
      end
    end
  end
end
call('ZADD', LEASES, '+inf', ':')
call('HSET', P .. 'names', ':', '1')
call('HSET', META, 'absence', text(absence))
local age = grow_older()
call('HSETNX', P .. 'gone', ':', text(age))
if slow().find_dead() then return { 'again' } end

local fields = { 'i:' .. id, name ~= '' and 'n:' .. name or nil }
local older = {}
for _, field in ipairs(fields) do
  local holder = call('HGET', P .. 'names', field)
  if holder and holder ~= older[1] and call('ZSCORE', LEASES, holder) then
    local held = call('HMGET', P .. 'inst:' .. holder, 'id', 'first')
    if held[1] ~= id and first ~= '' and tonumber(held[2] or '0') > tonumber(first) then
      return { 'replaced' }
    end
    older[#older + 1] = holder
  end
end
slow().bury(older)

INC = text(math.max(MICROS, (tonumber(call('HGET', META, 'last')) or 0) + 1))
if backlog and slow().prepare(7, 3) then return { 'again' } end
call('HSET', META, 'last', INC)
renew(tonumber(lease))
local late = false
local former_self = call('HGET', P .. 'names', fields[1])
if former_self then
  -- The same join once more: what it was answered, if anything, was heard by nobody.
  late = call('HGET', P .. 'inst:' .. former_self, 'late') and call('GET', P .. 'v:' .. former_self) == '1'
elseif first ~= '' and 2 * tonumber(first) >= born then
  -- A hash that is younger than that cannot know.
  local gone = call('HMGET', P .. 'gone', id, ':')
  late = age - gone[2] > absence and not (gone[1] and age - gone[1] <= absence)
end
call('HDEL', P .. 'gone', id)
call('SET', P .. 'v:' .. INC, '1')
call('SADD', P .. 'keys:' .. INC, ':')
if late then call('HSET', P .. 'inst:' .. INC, 'late', '1') end
call('HSET', P .. 'inst:' .. INC, 'id', id, 'first', first ~= '' and first or INC, 'lease', lease, 'seq', '0')
if name ~= '' then call('HSET', P .. 'inst:' .. INC, 'name', name) end
for _, field in ipairs(fields) do call('HSET', P .. 'names', field, INC) end
local out = put_back_all(7, { 'ok', INC, text(born) }, late)
settle()
return out
