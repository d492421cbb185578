-- Numbers of any size, and totals made of them. Inside of slow(), as the two files that follow are.
  local UNIT = 10000000000

  -- Numbers beyond 2^53 are pairs: high * 10^10 + low, 0 <= low < 10^10.
  local function pair(high, low)
    local carry = math.floor(low / UNIT)
    return { high + carry, low - carry * UNIT }
  end

  local function parse(value)
    if type(value) == 'table' then return value end
    local sign, digits = string.match(value, '^(-?)(%d+)$')
    if not digits or #digits > 19 then return nil end
    local high, low = tonumber(string.sub(digits, 1, -11)) or 0, tonumber(string.sub(digits, -10))
    if sign == '-' then high, low = -high, -low end
    return pair(high, low)
  end

  local function less(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end

  local MAX, MIN = parse('9223372036854775807'), parse('-9223372036854775808')

  local function show(a)
    local high, low, sign = a[1], a[2], ''
    if high < 0 then
      sign, high, low = '-', -high, -low
      if low < 0 then high, low = high - 1, low + UNIT end
    end
    if high == 0 then return sign .. text(low) end
    return sign .. text(high) .. string.format('%010.0f', low)
  end

  local function fits(a) return not (less(a, MIN) or less(MAX, a)) end

  local function plus(a, b, sign) return pair(a[1] + sign * b[1], a[2] + sign * b[2]) end

  function tools.is_count(value)
    local a = parse(value)
    return a and fits(a)
  end

  function tools.sum(a, b, c)
    local result = plus(plus(parse(a), parse(b), 1), parse(c), -1)
    return fits(result) and show(result) or nil
  end

  -- How much of `count` may be added to a total that is to stay within `least` and `most`, in text.
  function tools.fitting(total, count, least, most)
    local up, all = string.byte(count) ~= 45, parse(count)
    local room, none = plus(parse(up and most or least), parse(total), -1), parse('0')
    if less(parse(most), parse(least)) or less(up and room or none, up and none or room) then return '0' end
    return less(up and room or all, up and all or room) and show(room) or count
  end

  function tools.less(a, b) return less(parse(a), parse(b)) end

  local function clamp(total) return less(total, MIN) and MIN or less(MAX, total) and MAX or total end

  -- Writes a total that may lie outside of an i64.
  local function put_total(st, total)
    st.big = nil
    if fits(total) then
      st.t = show(total)
      if st.s then call('HDEL', st.name, 's') end
      st.s = nil
      call('HSET', st.name, 't', st.t)
    else
      st.t, st.s, st.big = show(clamp(total)), '1', total
      call('HSET', st.name, 't', st.t, 's', '1')
    end
  end

  -- The sum of the slices among the fields of a key; of those only whom `counts` holds for, if it is given.
  local function sum_of(fields, counts)
    local high, low = 0, 0
    for i = 1, #fields, 2 do
      local slice = string.find(fields[i], '^%d') and (not counts or counts(fields[i])) and parse(fields[i + 1])
      if slice then high, low = high + slice[1], low + slice[2] end
    end
    return pair(high, low)
  end

  function tools.sum_of(fields, counts) return show(clamp(sum_of(fields, counts))) end

  -- The true sum of a key whose total is clamped.
  local function rebuild(st) put_total(st, sum_of(call('HGETALL', st.name))) end
  tools.rebuild = rebuild

  -- Takes `part` away from the total; the slices that make it up are gone already.
  local function reduce(st, part)
    if st.s then return rebuild(st) end
    local total = parse(st.t)
    if total then put_total(st, plus(total, part, -1)) end
  end

  function tools.add(st, value) put_total(st, plus(parse(st.big or st.t), parse(value), 1)) end

