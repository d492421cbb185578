-- Additions that happen once for each token, questions about tokens, and marks that forbid them. Follows records.lua.
--
-- KEYS[1]  the totals
-- KEYS[2]  the index of the tokens: hash (see below)
-- KEYS[3]  the shape of the space (see shape.lua)
-- KEYS     then, for each live bucket, the oldest first: the bits of its parts
--          then, for each item and each live bucket: the part that the item is in
--          then the parts of the oldest dead bucket that are to be removed, and after the last of them its bits
-- ARGV[1]  half of the time for which tokens are kept, in s
-- ARGV[2]  how many shards the prefix has
-- ARGV[3]  the live buckets that KEYS are made for
-- ARGV[4]  how many items
-- ARGV[5]  'a' additions; 'r' questions, nothing is written; 'f' marks
-- ARGV[6]  the dead bucket of which parts are to be removed, and from which one on; or ''
-- ARGV[7..] per item: counter; 16 bytes of a digest of counter and token; for 'a' the decimal i64 to add
--
-- The index, which has no TTL:
--   clock  '<generation> <seen> <age>': see guard.lua. The age is that of the tokens
--   keep   for how long tokens are kept, in s
--   live   per live bucket, the oldest first: '<number> <half> <parts> <before>', with ';' between: its number; which
--          half of <keep> of the age it is of; how many parts it has, a power of two; how many tokens earlier buckets of
--          the same half have. New tokens go into the last one. One that is full is followed by a bigger one
--   n      how many tokens the last one has
--   dead   per bucket that is being removed: '<number> <parts> <next part>'
--   lost   '1' if the records of before this generation are lost, and would not have been forgotten yet
-- A part is a hash of digest -> '<amount> <answer>', or '-' for a mark; '<amount>' alone was not answered. A part has
-- a field ':', so that one that is lost is noticed: it has its bit, and no field ':'. Bits that are lost count as set.
--
-- Answer: 1, the live buckets and the dead ones, if KEYS are made for others, and nothing is done; else 0, the dead
-- ones, and per item
--   'a'    the new total (an integer, or 't' and text); 'r<answer>' if it was applied before; 'x<amount>' if another
--          amount was; 'o' overflow; 'n<text found>'
--   else   'd<amount> <answer>', 'u' nothing is known
--   all    'f' forbidden; 'l' what was known may be lost
-- Errors as in guard.lua, and 'KEEP <held> <wanted>'.

local totals, index, shape, KINDS = KEYS[1], KEYS[2], KEYS[3], ARGV[5]
local half, shards, view, items = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local keep = string.format('%.0f', 2 * half)
local FIRST, EXACT = 7, 9007199254740992
local WIDTH = KINDS == 'a' and 3 or 2
-- How many tokens a part has on average when its bucket is full, and when a bucket is made for as many as before.
local FULL, PLANNED = 128, 64
local FEWEST, GROWTH, MOST = 16, 32, 1048576
-- A bucket is live during its own half and the two after it.
local HALVES = 3
local try = redis.pcall
local reads, wrote = KINDS == 'r', false

local function failed(reply, at)
  if wrote then
    return { err = 'PARTLY ' .. reply.err }
  end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    return { err = 'FOREIGN ' .. at }
  end
  return reply
end

-- A user that may not run all of these would leave a token that names no addition. Before Redis 7 there is no asking.
local function denied()
  local of_tokens, of_totals = { 'HSET', 'HDEL', 'SETBIT', 'GETBIT' }, { 'HINCRBY', 'HGET' }
  for _, name in ipairs(redis.acl_check_cmd and of_tokens or {}) do
    if not redis.acl_check_cmd(name, KEYS[4], '0', '0') then
      return { err = 'NOPERM tokens need ' .. name .. ' on ' .. KEYS[4] }
    end
  end
  for _, name in ipairs(redis.acl_check_cmd and KINDS == 'a' and of_totals or {}) do
    if not redis.acl_check_cmd(name, totals, '0', '0') then
      return { err = 'NOPERM tokens need ' .. name .. ' on ' .. totals }
    end
  end
end

-- Looks at the shape, where there is no index. Gives an error, or whether records of before are lost.
local function first_use()
  local held = try('HMGET', shape, 'layout', 'shards', 'tokens', 'keep')
  if held.err then
    return failed(held, 3)
  end
  if not held[1] and shards ~= '1' and not reads then
    return { err = 'UNSHAPED the copy of the shape is lost' }
  end
  if held[1] and (held[1] ~= '1' or held[2] ~= shards) then
    return { err = 'SHAPE ' .. held[1] .. ' ' .. (held[2] or '') .. ' ' .. shards }
  end
  if held[4] and held[4] ~= keep then
    return { err = 'KEEP ' .. held[4] .. ' ' .. keep }
  end
  return held[3]
end

local held = try('HMGET', index, 'clock', 'keep', 'live', 'n', 'dead', 'lost')
if held.err then
  return failed(held, 2)
end
local generation, age, clock = clock_of(held[1])
local lost = held[6]
if not held[1] then
  lost = first_use()
  if type(lost) == 'table' then
    return lost
  end
elseif held[2] ~= keep then
  return { err = 'KEEP ' .. (held[2] or '') .. ' ' .. keep }
end
if lost == '' then
  lost = false
end

local now = math.floor(tonumber(age) / half)
-- Whether what is lost would have been forgotten by now.
local past = lost and now >= HALVES
if past then
  lost = false
end

-- Which buckets are live now.
local stored, count = held[3] or '', tonumber(held[4] or '0')
local live, dead, last = {}, held[5] or '', nil
local changed = false
for number, of, parts, before in string.gmatch(stored, '(%d+) (%d+) (%d+) (%d+)') do
  last = { tonumber(number), tonumber(of), tonumber(parts), tonumber(before) }
  if last[2] + HALVES > now then
    live[#live + 1] = last
  else
    changed = true
    dead = dead .. (dead == '' and '' or ';') .. number .. ' ' .. parts .. ' 0'
  end
end
local opens = not last or last[2] < now or count >= FULL * last[3]
if reads then
  opens = false
elseif opens then
  -- By the second of the generation, so that a bucket is never taken for one of an index that was lost.
  local number, parts, before = 1000 * tonumber(string.sub(generation, 1, -7)), FEWEST, 0
  if last and last[2] == now then
    number, parts, before = last[1] + 1, math.min(GROWTH * last[3], MOST), last[4] + count
  elseif last then
    number = last[1] + 1
    while parts < MOST and PLANNED * parts < last[4] + count do
      parts = 2 * parts
    end
  end
  live[#live + 1] = { number, now, parts, before }
  count, changed = 0, true
end
local wanted = stored
if changed then
  local texts = {}
  for i, bucket in ipairs(live) do
    texts[i] = string.format('%.0f %.0f %.0f %.0f', bucket[1], bucket[2], bucket[3], bucket[4])
  end
  wanted = table.concat(texts, ';')
end
if wanted ~= view then
  return { 1, wanted, dead }
end

local BITS, buckets = 3, #live
local PARTS = BITS + buckets
-- Of each bucket whether its bits are there, once that is known.
local has_bits = {}

local function part_of(digest, parts)
  local a, b, c, d = string.byte(digest, 1, 4)
  return (a * 16777216 + b * 65536 + c * 256 + d) % parts
end

-- Whether the part of a bucket was lost, of which one sees nothing. Gives a table if the script must stop.
local function is_lost(at, digest)
  local bits = KEYS[BITS + at]
  if has_bits[at] == nil then
    local there = try('EXISTS', bits)
    if type(there) == 'table' then
      return there
    end
    has_bits[at] = there == 1
  end
  if not has_bits[at] then
    return true
  end
  local bit = try('GETBIT', bits, part_of(digest, live[at][3]))
  if type(bit) == 'table' then
    return failed(bit, BITS + at)
  end
  return bit == 1
end

-- What is remembered of an item: the text, or false; whether some of it may be lost; whether the part is there that a
-- record would go into. Or a table if the script must stop.
local function look(item, digest, added)
  local some_lost, has_part = lost, false
  for at = buckets, 1, -1 do
    -- The one that is just being made has nothing before the first record.
    if at < buckets or not opens or added > 0 then
      local place = PARTS + (item - 1) * buckets + at
      local both = try('HMGET', KEYS[place], digest, ':')
      if both.err then
        return failed(both, place)
      end
      if both[1] then
        return both[1]
      end
      if at == buckets then
        has_part = both[2]
      end
      if not both[2] then
        local gone = is_lost(at, digest)
        if type(gone) == 'table' then
          return gone
        end
        some_lost = some_lost or gone
      end
    end
  end
  return false, some_lost, has_part
end

-- Notes the life of the totals, of which there were none or one, as guard.lua does. An answer about tokens has no room to
-- tell that they were lost: '!' asks the next batch with a guard to.
local function note_life(had)
  local number, kept = try('HLEN', totals), try('HGET', shape, 'totals') or ''
  if type(number) == 'table' or type(kept) == 'table' then
    return
  end
  local life, mark = string.match(kept, '^(%d+)([-!]?)$')
  local lost = had == 0 and life and mark ~= '-'
  if not life and had > 0 then
    life = '0'
  elseif not life or lost then
    local time = try('TIME')
    if time.err then
      return
    end
    life = time[1] .. string.format('%06d', time[2])
  end
  local now = life
  if lost or mark == '!' then
    now = life .. '!'
  elseif number == 0 or number == 1 and try('HGETALL', totals)[2] == '0' then
    now = life .. '-'
  end
  if now ~= kept then
    try('HSET', shape, 'totals', now)
  end
end

local added = 0
local newest = live[buckets]

-- Writes a record that is not there yet. Gives the failed reply, if any.
local function record(part, digest, text, has_part)
  local kept
  if has_part then
    kept = try('HSET', part, digest, text)
  else
    -- The bit first: a part without a bit might be lost unnoticed.
    kept = try('SETBIT', KEYS[BITS + buckets], part_of(digest, newest[3]), 1)
    if type(kept) ~= 'table' then
      kept = try('HSET', part, digest, text, ':', '')
    end
  end
  if type(kept) == 'table' then
    return kept
  end
  added = added + 1
end

-- Adds under a token that is not used. Gives the item's part of the answer, or a table if the script must stop.
local function add(counter, digest, amount, part, has_part)
  -- Before the addition: one that is not recorded would be added again.
  local reply = record(part, digest, amount, has_part)
  if reply then
    return failed(reply, 2)
  end
  local total = try('HINCRBY', totals, counter, amount)
  if type(total) == 'table' then
    added = added - 1
    local taken_back = try('HDEL', part, digest)
    if type(taken_back) == 'table' then
      wrote = true
      return failed(taken_back, 2)
    end
    if string.find(total.err, 'overflow', 1, true) then
      return 'o'
    elseif string.find(total.err, 'not an integer', 1, true) then
      local found = try('HGET', totals, counter)
      return type(found) == 'table' and failed(found, 1) or 'n' .. string.sub(found, 1, 260)
    end
    return failed(total, 1)
  end
  wrote = true
  local answer = total
  if total >= EXACT or total <= -EXACT then
    total = try('HGET', totals, counter)
    if type(total) == 'table' then
      return failed(total, 1)
    end
    answer = 't' .. total
  else
    total = string.format('%.0f', total)
  end
  reply = try('HSET', part, digest, amount .. ' ' .. total)
  return type(reply) == 'table' and failed(reply, 2) or answer
end

-- One item's part of the answer, or a table if the script must stop.
local function answer_to(item)
  local at = FIRST + (item - 1) * WIDTH
  local counter, digest, amount = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local known, some_lost, has_part = look(item, digest, added)
  if type(known) == 'table' then
    return known
  end
  local part = KEYS[PARTS + item * buckets]
  if known == '-' then
    return 'f'
  elseif known then
    local first, answer = string.match(known, '^(%S+) (%S+)$')
    if not first then
      return 'l'
    elseif KINDS ~= 'a' then
      return 'd' .. known
    elseif first ~= amount then
      return 'x' .. first
    end
    return 'r' .. answer
  elseif some_lost then
    return 'l'
  elseif reads then
    return 'u'
  elseif KINDS == 'f' then
    local reply = record(part, digest, '-', has_part)
    wrote = wrote or not reply
    return reply and failed(reply, 2) or 'f'
  end
  return add(counter, digest, amount, part, has_part)
end

-- Removes some parts of the oldest dead bucket. Gives what is dead then.
local function swept()
  local first = PARTS + items * buckets + 1
  local number, parts, from = string.match(dead, '^(%d+) (%d+) (%d+)')
  if not KEYS[first] or ARGV[6] ~= (number or '') .. ' ' .. (from or '') then
    return dead
  end
  -- What cannot be removed now is left to the next request.
  if type(try('UNLINK', unpack(KEYS, first))) == 'table' then
    return dead
  end
  local next = tonumber(from) + #KEYS - first + 1
  local rest = string.match(dead, '^[^;]*;?(.*)$')
  if next > tonumber(parts) then
    return rest
  end
  return number .. ' ' .. parts .. ' ' .. string.format('%.0f', next) .. (rest == '' and '' or ';') .. rest
end

local function answer_all()
  local answer = { 0, dead }
  if not reads then
    -- What one item does can be taken back.
    local reply = items > 1 and denied()
    if reply then
      return reply
    end
    if opens then
      -- As many as there are parts, so that it is there although no part is.
      reply = try('SETBIT', KEYS[BITS + buckets], newest[3] - 1, 0)
      if type(reply) == 'table' then
        return failed(reply, BITS + buckets)
      end
    end
    if past or not held[1] and not lost then
      -- Before the index, which is not to be lost unnoticed.
      reply = try('HSET', shape, 'layout', '1', 'shards', shards, 'tokens', generation, 'keep', keep)
      if type(reply) == 'table' then
        return failed(reply, 3)
      end
    end
    if clock or opens or dead ~= (held[5] or '') or (lost and '1' or '') ~= (held[6] or '') then
      reply = try(
        'HSET', index, 'clock', clock or held[1], 'keep', keep, 'live', wanted, 'n', string.format('%.0f', count),
        'dead', dead, 'lost', lost and '1' or ''
      )
      if type(reply) == 'table' then
        return failed(reply, 2)
      end
    end
  end
  local had = KINDS == 'a' and try('HLEN', totals)
  for item = 1, items do
    local part = answer_to(item)
    if type(part) == 'table' then
      return part
    end
    answer[item + 2] = part
  end
  if wrote and type(had) == 'number' and had < 2 then
    note_life(had)
  end
  if not reads then
    local left = swept()
    if added > 0 or left ~= dead then
      local reply = try('HSET', index, 'n', string.format('%.0f', count + added), 'dead', left)
      if type(reply) == 'table' then
        return failed(reply, 2)
      end
    end
    answer[2] = left
  end
  return answer
end

return answer_all()
