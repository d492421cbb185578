-- Makes an instance a member, with the first part of its claims. Follows instance_claims.lua.
-- ARGV  id, name or '', lease in ms, first incarnation or '', then the claims
-- Gives 'ok', incarnation, then the claims' standings; or 'replaced'; or 'again'.
-- Layout and shards: a copy of what shape.lua makes, for a server that lost that key.
local SHAPE = '1 1'
local id, name, lease, first = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not read_meta() then
  local now = text(2 * MICROS)
  call('HSET', META, 'shape', SHAPE, 'born', now, 'epoch', text(2 * MICROS - 1), 'floor', now, 'deaths', '0')
  read_meta()
else
  local held = call('HGET', META, 'shape')
  if held ~= SHAPE then return { err = 'SHAPE ' .. (held or '') } end
end
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
if backlog and slow().prepare(5, 3) then return { 'again' } end
call('HSET', META, 'last', INC)
renew(tonumber(lease))
call('HSET', P .. 'inst:' .. INC, 'id', id, 'first', first ~= '' and first or INC)
if name ~= '' then call('HSET', P .. 'inst:' .. INC, 'name', name) end
for _, field in ipairs(fields) do call('HSET', P .. 'names', field, INC) end
local out = put_back_all(5, { 'ok', INC })
settle()
return out
