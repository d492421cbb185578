-- What each operation begins and ends with, and how a key is loaded and stored.

-- The key alone is what quick operations renew; the set is what counts where the key is lost, be it that
-- the lease ran out and nobody collected the instance.
local function renew(lease)
  local ends = NOW + lease
  call('ZADD', LEASES, text(ends), INC)
  if ends - 1 > NOW then
    call('SET', P .. 'lease:' .. INC, lease, 'PXAT', text(ends - 1))
  else
    call('DEL', P .. 'lease:' .. INC)
  end
  if ends < due then
    due = ends
    call('HSET', META, 'due', text(due))
    call('DEL', P .. 'quiet')
  end
end

-- Ends an operation: sweeps if there is something to sweep, else says that the next ones need not look.
local function settle()
  if backlog then slow().sweep() end
  if not backlog and due - 1 > NOW then
    call('SET', P .. 'quiet', text(floor), 'PXAT', text(due - 1))
  end
end

-- Begins an operation of a joined instance: renews its lease and finds the dead.
-- Gives what to answer instead of going on, if anything.
local function enter(inc, lease)
  INC = inc
  local refusal = denied()
  if refusal then return refusal end
  if not call('ZSCORE', LEASES, inc) or not read_meta() then return { 'notjoined' } end
  renew(tonumber(lease))
  if NOW >= due and slow().find_dead() then return { 'again' } end
end

-- The number of this operation among the incarnation's.
local function version()
  local number = call('INCR', P .. 'v:' .. INC)
  -- The count is lost: answers could not be put in order.
  if number == 1 then
    slow().bury({ INC })
    error(LOST)
  end
  return number
end

local LONGEST_STEP = 60000

-- Makes the space older by the time since the last join or heartbeat: a minute at most, whatever the server's clock
-- did, so that it may be late with what it forgets, and never early. Gives its age.
local function grow_older()
  local kept = call('HMGET', META, 'age', 'turned', 'absence')
  local age = (tonumber(kept[1]) or 0) + math.max(0, math.min(NOW - seen, LONGEST_STEP))
  seen = NOW
  call('HSET', META, 'age', text(age), 'seen', text(NOW))
  if age - (tonumber(kept[2]) or 0) < (tonumber(kept[3]) or math.huge) then return age end
  call('HSET', META, 'turned', text(age))
  if not tombs then return age end
  if call('HLEN', P .. 'tombs') < 2 and call('HLEN', P .. 'tombs:old') < 2 then
    call('UNLINK', P .. 'tombs', P .. 'tombs:old')
    tombs = false
    call('HDEL', META, 'tombs')
    return age
  end
  call('UNLINK', P .. 'tombs:old')
  if call('EXISTS', P .. 'tombs') == 1 then call('RENAME', P .. 'tombs', P .. 'tombs:old') end
  call('HSET', P .. 'tombs', ':', '1')
  tombs = '2'
  call('HSET', META, 'tombs', tombs)
  -- Even, as it is no change.
  former, base = base, tonumber(new_epoch()) + 1
  call('HSET', META, 'former', text(former), 'base', text(base))
  return age
end

local function is_count(value)
  local number = tonumber(value)
  if not (number and (value == '0' or string.find(value, '^-?[1-9]%d*$'))) then return false end
  return number < EXACT and number > -EXACT or slow().is_count(value)
end

-- a + b - c, or nil if that is no i64.
local function sum(a, b, c)
  local x, y, z = tonumber(a), tonumber(b), tonumber(c)
  if x and x < EXACT and x > -EXACT and y < EXACT and y > -EXACT and z < EXACT and z > -EXACT then
    return text(x + y - z)
  end
  return slow().sum(a, b, c)
end

-- How a key stands, the dead collected: t, e, v (nil without a slice of the caller's), absent.
-- `bad` says what does not belong there, `again` that the budget ran out.
-- `blind` says that a new slice follows, with which a lost hash is noticed.
function load(key, blind)
  local name = P .. 'k:' .. key
  local h = try('HMGET', name, 't', 'e', 'c', INC or '0', 's')
  if h.err then return { key = key, name = name, bad = h.err } end
  local st = { key = key, name = name, t = h[1], e = h[2], v = h[4] or nil, s = h[5] or nil, blind = blind }
  local e, c = tonumber(h[2]), tonumber(h[3])
  if not (h[1] or h[2] or h[3]) then
    slow().missing(st)
  elseif not (h[1] and e and c) then
    st.bad, st.e = h[1] or 'an incomplete hash', e and h[2]
  elseif e < floor then
    call('UNLINK', name)
    call('HDEL', P .. 'index', key)
    slow().missing(st)
  else
    if backlog and c < deaths or c < verify then slow().collect(st, h[3]) end
    if st.s and not st.big and not st.again then slow().rebuild(st) end
    if not is_count(st.t) then st.bad = st.t
    elseif st.v and not is_count(st.v) then st.bad = st.v end
  end
  return st
end

-- Makes `t` the total and `v` the caller's slice.
local function store(st, t, v)
  if v == '0' then
    if st.absent then
      -- Nothing but an epoch that must not be forgotten.
      return slow().keep_epoch(st.key, st.e)
    end
    -- Of what was put back from before the data was lost, a part may have to be taken away later.
    if call('HEXISTS', st.name, 'o' .. INC) == 0 then
      if st.v then
        call('HDEL', st.name, INC)
        call('SREM', P .. 'keys:' .. INC, st.key)
        if call('HLEN', st.name) <= (st.s and 4 or 3) then return slow().vanish(st) end
      end
      call('HSET', st.name, 't', t)
      if st.s then call('HDEL', st.name, 's') end
      return
    end
  end
  if st.absent then
    if not st.blind then
      call('HSET', P .. 'index', st.key, st.e)
    elseif call('HSETNX', P .. 'index', st.key, st.e) == 0 then
      -- It is lost, or from before a clear.
      st.blind = false
      slow().missing(st)
      call('HSET', P .. 'index', st.key, st.e)
    end
    -- Whoever had a slice still is among its owners, where the key and its entry in the index are lost.
    if call('SADD', P .. 'keys:' .. INC, st.key) == 0 then slow().lose(st.key, st.e) end
    call('HSET', st.name, 't', t, 'e', st.e, 'c', text(deaths), INC, v)
    if st.tomb then
      call('HDEL', P .. 'tombs', st.key)
      if tombs == '2' then call('HDEL', P .. 'tombs:old', st.key) end
    end
    return
  end
  call('HSET', st.name, 't', t, INC, v)
  if st.s then call('HDEL', st.name, 's') end
  if not st.v then call('SADD', P .. 'keys:' .. INC, st.key) end
end
