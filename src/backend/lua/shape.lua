-- Makes or checks what all processes of a space must agree on.
--
-- KEYS[1]  the shape: hash of layout (version), shards (how many), and the generation of each hash of guards:
--          guards (of writers), lanes
-- ARGV     layout, shards
--
-- Answer: the layout and shards that are held, in a table, and a third item if they were not.
local held = redis.call('HMGET', KEYS[1], 'layout', 'shards')
if not held[1] then
  redis.call('HSET', KEYS[1], 'layout', ARGV[1], 'shards', ARGV[2])
  return { ARGV[1], ARGV[2], 'new' }
end
return { held[1], held[2] or '' }
