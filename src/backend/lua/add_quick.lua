-- The way of additions in a lane that is known and whose clock need not move. Comes before the library, which takes as
-- long to define as this to do; whatever it cannot do is left to the library, as if nothing had been done.
--
-- KEYS, ARGV  see guard.lua
if ARGV[1] == 'l' then
  local args, keys = ARGV, KEYS
  local totals, lanes, sequence, id = keys[1], keys[2], args[2], args[3]
  local try, EXACT = redis.pcall, 9007199254740992
  local both = try('HMGET', lanes, id, ':clock')
  local last = both[1] and string.match(both[1], '^(%d+) ')
  local seen, age = string.match(both[2] or '', '^%d+ (%d+) (%d+)$')
  local time = redis.call('TIME')
  local claimed = last and seen and tonumber(last) == tonumber(sequence) - 1 and seen == time[1]
  local idle = claimed and tonumber(string.match(args[4], '/(%d+)$'))
  if claimed and args[5] ~= '' then
    local start, stop, till = string.match(args[5], '^%a (%d+) (%d+) (%d+)$')
    local now = time[1] * 1000 + time[2] / 1000
    local held = now >= tonumber(start) and now < tonumber(stop) and try('HGET', totals, ':window')
    claimed = type(held) == 'string' and tonumber(held) >= tonumber(till)
    if claimed and idle then
      -- Records stay for as long as the window does: see renew() in guard.lua.
      local left = try('PTTL', lanes)
      claimed = type(left) == 'number' and now + left >= tonumber(held)
    end
  end
  -- A batch of which one command is denied is the library's, which turns it down before anything is written.
  if #args > 7 and redis.acl_check_cmd then
    for _, name in ipairs({ 'HINCRBY', 'HGET' }) do
      claimed = claimed and redis.acl_check_cmd(name, totals, args[6], '0')
    end
  end
  -- Before the additions: what is added and not recorded would be added again.
  claimed = claimed and type(try('HSET', lanes, id, sequence .. ' ' .. age)) ~= 'table'
  local answer, at = { 0 }, 1
  for item = 6, claimed and #args or 0, 2 do
    local total = try('HINCRBY', totals, args[item], args[item + 1])
    if type(total) == 'table' then
      if string.find(total.err, 'overflow', 1, true) then
        total = 'o'
      elseif at == 1 then
        -- The library says why. Nothing was done yet.
        claimed = false
        redis.call('HSET', lanes, id, both[1])
        break
      else
        local found = try('HGET', totals, args[item])
        if not string.find(total.err, 'not an integer', 1, true) or type(found) == 'table' then
          return { err = 'PARTLY ' .. total.err }
        end
        total = 'n' .. string.gsub(string.sub(found, 1, 260), '\n', ' ')
      end
    elseif total >= EXACT or total <= -EXACT then
      total = try('HGET', totals, args[item])
      if type(total) == 'table' then
        return { err = 'PARTLY ' .. total.err }
      end
    elseif at == 1 and (total == 0 or total - args[7] == 0) and try('HLEN', totals) == 1 then
      -- There is nothing but this one, or was nothing. If no counter was left then, the totals were lost.
      local kept = try('HGET', keys[3], 'totals') or ''
      local life, left = string.match(type(kept) == 'string' and kept or '', '^(%d+)(-?)$')
      local lost = total - args[7] == 0 and left ~= '-'
      if lost then
        local time = redis.call('TIME')
        life = time[1] .. string.format('%06d', time[2])
      end
      local noted = life and try('HSET', keys[3], 'totals', total == 0 and life .. '-' or life)
      if lost and type(noted) == 'number' then
        answer[1] = '0 ' .. string.match(both[2], '^%d+') .. ' ' .. last .. ' ' .. life
      end
    end
    at = at + 1
    answer[at] = total
  end
  if claimed then
    local left = idle and args[5] == '' and try('PTTL', totals)
    if left and (type(left) ~= 'number' or left < idle + 3000) then
      -- The records were renewed in this second, and the totals with them, unless a window was written to, or the last
      -- counter was deleted since, and its hash with it. They may not outlive the records: a batch that is sent again
      -- would count twice.
      left = idle + 4000
      for at = 2, #keys do
        local stays = try('PTTL', keys[at])
        left = type(stays) == 'number' and stays > 0 and math.min(left, stays) or left
      end
      try('PEXPIREAT', totals, string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + left))
    end
    local kept = try('HSET', lanes, id, sequence .. ' ' .. age .. '\n' .. cmsgpack.pack(answer))
    return type(kept) == 'table' and { err = 'PARTLY ' .. kept.err } or answer
  end
end
