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
