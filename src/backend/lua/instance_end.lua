end

-- What fails after a counter was changed has changed it.
local function run()
  local done, answer = pcall(main)
  if done then return answer end
  if answer == LOST then return { lost_answer } end
  local text = type(answer) == 'table' and answer.err or tostring(answer)
  if claimed and not wrote then try('HSET', P .. 'inst:' .. INC, 'seq', claimed) end
  return { err = wrote and 'PARTLY ' .. text or text }
end

if not KEYS[3] then return run() end
-- What the client sent twice gets the first answer twice. The records are those of guard.lua.
local id, sequence = table.remove(ARGV), table.remove(ARGV)
local both = call('HMGET', KEYS[3], id, ':clock')
local last = both[1] and string.match(both[1], '^%d+')
if last and tonumber(last) >= tonumber(sequence) then
  local packed = last == sequence and string.match(both[1], '^[^\n]*\n(.*)$')
  return packed and cmsgpack.unpack(packed) or { err = 'PARTLY the answer is not kept any more' }
end
local now = call('TIME')
local generation, seen, age = string.match(both[2] or '', '^(%d+) (%d+) (%d+)$')
if generation then
  local step = math.max(0, math.min(tonumber(now[1]) - tonumber(seen), 60))
  age = string.format('%.0f', tonumber(age) + step)
else
  generation, age = now[1] .. string.format('%06d', now[2]), '0'
end
if not last then
  local some = call('HRANDFIELD', KEYS[3], 4, 'WITHVALUES')
  for i = 1, #some, 2 do
    local used = string.match(some[i + 1], '^%d+ (%d+)')
    if some[i] ~= ':clock' and used and age - used > 3600 then try('HDEL', KEYS[3], some[i]) end
  end
end
-- Before the change: one that is made and not recorded would be made again.
call('HSET', KEYS[3], id, sequence .. ' ' .. age, ':clock', generation .. ' ' .. now[1] .. ' ' .. age)
local answer = run()
if not answer.err then
  wrote = true
  local kept = try('HSET', KEYS[3], id, sequence .. ' ' .. age .. '\n' .. cmsgpack.pack(answer))
  if type(kept) == 'table' then return { err = 'PARTLY ' .. kept.err } end
elseif not wrote then
  call('HSET', KEYS[3], id, both[1] or string.format('%.0f', tonumber(sequence) - 1) .. ' ' .. age)
end
return answer
