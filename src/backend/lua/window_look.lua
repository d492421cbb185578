-- Comes before scripts that read a window.
--
-- KEYS[1]      the totals of the window
-- KEYS[2]      the index of these windows: see window_open.lua
-- ARGV[#ARGV]  the window: see guard.lua
--
-- Sets `gone`: nothing is to be read there, because nothing was written or because the window is closed.
local mode, start, stop = string.match(ARGV[#ARGV], '^(%a) (%d+) (%d+) %d+$')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if mode == 'c' and (now < tonumber(start) or now >= tonumber(stop)) then
  return { err = 'NOTCURRENT ' .. string.format('%.0f', now) }
end
local held = redis.pcall('HGET', KEYS[1], ':window')
if type(held) == 'table' then
  return string.find(held.err, 'WRONGTYPE', 1, true) and { err = 'FOREIGN 1' } or held
end
local gone = not held or now >= tonumber(held)
if not held then
  local listed = redis.pcall('HGET', KEYS[2], start)
  if type(listed) == 'table' then
    return string.find(listed.err, 'WRONGTYPE', 1, true) and { err = 'FOREIGN 2' } or listed
  end
  if listed and now < tonumber(string.match(listed, '^%d+')) then
    return { err = 'LOST the counters of the window are lost' }
  end
end
