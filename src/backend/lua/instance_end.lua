end

-- What fails after a counter was changed has changed it.
local function run()
  local done, answer = pcall(main)
  if claimed and not wrote then try('HSET', P .. 'inst:' .. INC, 'seq', claimed) end
  if done then return answer end
  -- Additions go with the slices of those who join anew. A total that was set or deleted stays.
  if answer == LOST and not replaced then return { lost_answer } end
  local text = answer == LOST and 'a part of the space is lost'
    or type(answer) == 'table' and answer.err or tostring(answer)
  return { err = wrote and 'PARTLY ' .. text or text }
end

if not KEYS[3] then return run() end
