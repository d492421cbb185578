-- What the scripts of the instance-aware counters share. Follows instance_names.lua; instance_sums.lua,
-- instance_keys.lua, instance_dead.lua and instance_calls.lua go on.
local LEASES = P .. 'leases'
local INC, born, floor, base, former, deaths, verify, backlog, due, seen, tombs
-- What an operation answers that finds a part of the space lost. Everybody has to join anew then, and puts back
-- what was acknowledged.
local LOST, lost_answer = {}, 'notjoined'
local EXACT = 2251799813685248
-- How many slices of the dead one call collects before it asks to be called again.
local budget = 500

local time = call('TIME')
local MICROS = time[1] * 1000000 + time[2]
local NOW = math.floor(MICROS / 1000)

local function text(number) return string.format('%.0f', number) end

-- The epoch of a change: odd, as the first one was.
local function new_epoch() return text(call('HINCRBY', META, 'epoch', 2)) end

-- What only some calls need is made when one of them does.
local slow, load

-- No lease has more left than its own length: what a clock that went back would add is taken off.
local function cap_leases()
  local list = call('ZRANGE', LEASES, '(+inf', '(' .. text(NOW), 'BYSCORE', 'REV', 'LIMIT', 0, 1000, 'WITHSCORES')
  local capped = 0
  for i = 1, #list, 2 do
    local length = tonumber(call('HGET', P .. 'inst:' .. list[i], 'lease'))
    if length and tonumber(list[i + 1]) > NOW + length then
      call('ZADD', LEASES, text(NOW + length), list[i])
      call('DEL', P .. 'lease:' .. list[i])
      due = math.min(due, NOW + length)
      capped = capped + 1
    end
  end
  -- Of very many, others are left to the next call.
  if #list < 2000 or capped == 0 then
    seen = NOW
    call('HSET', META, 'seen', text(NOW))
  end
  call('HSET', META, 'due', text(due))
  call('DEL', P .. 'quiet')
end

local function read_meta()
  local meta = call(
    'HMGET', META, 'born', 'floor', 'deaths', 'dead', 'due', 'seen', 'base', 'former', 'verify', 'tombs'
  )
  born, floor, deaths, backlog = tonumber(meta[1]), tonumber(meta[2]), tonumber(meta[3]), meta[4]
  due, seen, tombs = tonumber(meta[5]) or 0, tonumber(meta[6]) or NOW, meta[10]
  base, former, verify = tonumber(meta[7]) or born, tonumber(meta[8]) or born, tonumber(meta[9]) or 0
  -- The server's clock went back.
  if NOW < seen then cap_leases() end
  if backlog and call('ZCARD', P .. 'dead') == 0 then slow().look_through_all() end
  return born
end

local tools
function slow()
  if tools then return tools end
  tools = {}
