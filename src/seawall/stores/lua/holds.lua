-- Costs that are set aside until it is known what was used: one key for each subject of a limiter. A hold that is not
-- settled until its end counts in full, as of its end.
--   head   when the first of them ends, or earlier; when the last one ends; how much is held of each limit (doubles)
--   hold   8 bytes that name it; when it ends, and how much of each limit (doubles)
local MOST_HOLDS = 4096

local function head_of(u)
  local held = {}
  for i = 1, u.n do held[i] = u[i].held end
  return pack('>dd' .. string.rep('d', u.n), u.first, u.last, unpack(held))
end

-- How much of each limit a hold has, and when it ends.
local function amounts(u, one)
  local found = {unpack_at('>d' .. string.rep('d', u.n), one, 9)}
  return found, found[1]
end

-- Write what is left of them: the holds, or none.
local function keep_holds(u, list)
  if list == '' then
    u.first = nil
    call('DEL', u.holds)
  else
    call('SET', u.holds, head_of(u) .. list, 'PX', lifetime(u.last + u.keep - now))
  end
end

-- Count those that have ended, oldest first.
local function count_ended(u)
  local list, size, ended = call('GET', u.holds):sub(17 + 8 * u.n), 16 + 8 * u.n, {}
  local stay = {}
  u.first, u.last = math.huge, 0
  for at = 1, #list, size do
    local one = list:sub(at, at + size - 1)
    local found, ends = amounts(u, one)
    if ends <= now then
      ended[#ended + 1] = found
    else
      stay[#stay + 1], u.first, u.last = one, min(u.first, ends), max(u.last, ends)
    end
  end
  table.sort(ended, function(x, y) return x[1] < y[1] end)
  for _, found in ipairs(ended) do
    for i = 1, u.n do
      local l, n = u[i], found[i + 1]
      l.held = l.held - n
      if n > 0 then
        l.kind.count(l, n, found[1])
        l.dirty = true
      end
    end
  end
  u.stay = table.concat(stay)
end

local function load_holds(u)
  if not u.holds then return end
  local head = call('GETRANGE', u.holds, 0, 15 + 8 * u.n)
  if head == '' then return end
  local found = {unpack_at('>dd' .. string.rep('d', u.n), head)}
  u.first, u.last = found[1], found[2]
  for i = 1, u.n do u[i].held = found[i + 2] end
end

-- How long until the cost is admitted if nobody settles anything: each hold counts in full at its end.
local function wait_behind_holds(u, l, place)
  local held, t, ahead = l.held, now, {}
  if l.cost + held > l.d then
    local list, size = call('GET', u.holds):sub(17 + 8 * u.n), 16 + 8 * u.n
    for at = 1, #list, size do ahead[#ahead + 1] = amounts(u, list:sub(at, at + size - 1)) end
    table.sort(ahead, function(x, y) return x[1] < y[1] end)
  end
  local later = {}
  for name, value in pairs(l) do later[name] = value end
  if type(l.n) == 'table' then later.n = {unpack(l.n, 1, l.c)} end
  for _, found in ipairs(ahead) do
    if l.cost + held <= l.d then break end
    t, held = max(t, found[1]), held - found[place + 1]
    l.kind.count(later, found[place + 1], t)
  end
  l.kind.move(later, t)
  return max(1, t - now + l.kind.wait(later, l.cost + held, t))
end

-- False if there are too many already.
local function add_hold(u, name, ends)
  local costs = {}
  local fresh, size = not u.first, 16 + 8 * u.n
  if not fresh and call('STRLEN', u.holds) > size * MOST_HOLDS then return false end
  for i = 1, u.n do
    costs[i] = max(u[i].cost, 0)
    u[i].held = u[i].held + costs[i]
  end
  local one = name .. pack('>d' .. string.rep('d', u.n), ends, unpack(costs))
  u.first, u.last = min(u.first or ends, ends), max(u.last or ends, ends)
  if fresh then
    keep_holds(u, one)
  else
    call('APPEND', u.holds, one)
    call('SETRANGE', u.holds, 0, head_of(u))
    call('PEXPIRE', u.holds, lifetime(u.last + u.keep - now))
  end
  return true
end

-- Whether it was still open.
local function end_hold(u, name)
  if not u.first then return false end
  local size = 16 + 8 * u.n
  local list = call('GET', u.holds):sub(size + 1)
  local at = 0
  repeat at = list:find(name, at + 1, true) until not at or (at - 1) % size == 0
  if not at then return false end
  local found = amounts(u, list:sub(at, at + size - 1))
  for i = 1, u.n do u[i].held = u[i].held - found[i + 1] end
  keep_holds(u, list:sub(1, at - 1) .. list:sub(at + size))
  return true
end
