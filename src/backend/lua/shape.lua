-- Looks at what all processes of a prefix must agree on, and makes it.
--
-- KEYS[1]  the shape: hash of layout (version), shards (how many), and the generation of each hash of guards:
--          guards (of writers), lanes; totals (see guard.lua); and windows (see window_open.lua). A prefix has one under
--          its own tag, and each of several shards a copy.
-- KEYS[2]  under the prefix's own tag: the totals of a prefix of one shard
-- KEYS[3]  the same: what tells the instance-aware counters of a prefix of one shard (see instance_names.lua)
-- ARGV     layout, shards, '1' to make the shape where there is none
--
-- `shards` is how many; of a prefix that expires '/' and the time (ms) follow. Then a prefix of one shard has no TTL
-- here until something is written: see guard.lua.
--
-- Of a prefix of several shards, KEYS[2] and KEYS[3] hold the text 'layout <layout>, <shards> shards': a process that
-- would count there although it has one shard finds a wrong type, also where the shape is lost or it does not look.
--
-- Answer: the layout and shards that are held, in a table, or an empty table.
local held = redis.call('HMGET', KEYS[1], 'layout', 'shards')
local make = ARGV[3] == '1'
local several = string.match(ARGV[2], '^%d+') ~= '1'
local marker = 'layout ' .. ARGV[1] .. ', ' .. ARGV[2] .. ' shards'
if held[1] then
  if KEYS[2] and several and held[1] == ARGV[1] and held[2] == ARGV[2] then
    -- What others would find without a shape may be lost.
    redis.call('SET', KEYS[2], marker, 'NX')
    redis.call('SET', KEYS[3], marker, 'NX')
  end
  return { held[1], held[2] or '' }
end
for at = 2, #KEYS do
  -- The shape is lost. What is counted, or marked, tells what it was.
  local there
  -- With one shard a user need not have the right to GET, unless there is something to get.
  if several or redis.pcall('HMGET', KEYS[at], ':').err then
    there = redis.pcall('GET', KEYS[at])
  end
  if type(there) == 'string' then
    local layout, shards = string.match(there, '^layout (%d+), ([%d/]+) shards$')
    if layout then
      redis.call('HSET', KEYS[1], 'layout', layout, 'shards', shards)
      return { layout, shards }
    end
  elseif there and string.find(there.err, 'WRONGTYPE', 1, true) then
    if several then
      return { ARGV[1], '1' }
    end
  elseif there then
    return there
  end
end
if not make then
  return {}
end
-- First, so that no shape is made whose markers are not there.
if KEYS[2] and several then
  redis.call('SET', KEYS[2], marker)
  redis.call('SET', KEYS[3], marker)
end
redis.call('HSET', KEYS[1], 'layout', ARGV[1], 'shards', ARGV[2])
return { ARGV[1], ARGV[2] }
