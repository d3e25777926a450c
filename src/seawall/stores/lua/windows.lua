-- Fixed window, aligned to the server's calendar. The state: three doubles, 24 bytes.
--   1  the instant at which its window began
--   2  what was counted in it
--   3  its length: a client with another one keeps the count
local fixed = {}

function fixed.load(l)
  local s = call('GET', l.key)
  l.at, l.n = 0, 0
  if not s then return end
  local at, n, length = unpack_at('>ddd', s)
  if length == l.b then
    l.at, l.n = at, n
  elseif at <= now and now < at + length then
    l.at, l.n = now - now % l.b, min(n, 2 * l.d)
  end
end

function fixed.move(l, t)
  local at = t - t % l.b
  -- A state of another window, earlier or later, is empty: a step of the clock starts at most one new window.
  if at > l.at or (at < l.at and t == now) then l.at, l.n = at, 0 end
end

function fixed.fits(l, n)
  return l.n + n <= l.d
end

function fixed.wait(l, n, t)
  return fixed.fits(l, n) and 0 or l.at + l.b - t
end

function fixed.take(l)
  l.n = l.n + l.cost
end

function fixed.count(l, n, t)
  fixed.move(l, t)
  l.n = max(l.n, min(l.n + n, 2 * l.d))
end

function fixed.save(l)
  call('SET', l.key, pack('>ddd', l.at, l.n, l.b), 'PX', lifetime(l.at + l.b - now))
end

function fixed.tell(l)
  return l.n, l.n > 0 and l.at + l.b - now or 0
end

-- Sliding window in buckets, of which the oldest, partly outside, counts in full. The state: 16 bytes, and 4 for each.
--   1  the number of the newest bucket since 1970 (a double)
--   2  the length of a bucket (a double)
--   3...  the counts, newest first (unsigned, 32 bits)
local sliding = {}

function sliding.load(l)
  local s = call('GET', l.key)
  l.at, l.n = 0, {}
  if s then
    local at, length = unpack_at('>dd', s)
    local many = (#s - 16) / 4
    local counts = {unpack_at('>' .. string.rep('I4', many), s, 17)}
    if length == l.b and many == l.c then
      l.at, l.n = at, counts
      return
    end
    -- Of another shape: each count goes to the bucket in which the end of its old one lies, or now if that is sooner.
    l.at = floor(now / l.b)
    for i = 1, many do
      local ends = min((at - i + 2) * length - 1, now)
      local place = l.at - floor(ends / l.b) + 1
      if place <= l.c then l.n[place] = (l.n[place] or 0) + counts[i] end
    end
  end
  for i = 1, l.c do l.n[i] = l.n[i] or 0 end
end

function sliding.move(l, t)
  local at = floor(t / l.b)
  local passed = at - l.at
  if passed < 0 then
    if t == now then l.at, l.dirty = at, true end
  elseif passed > 0 then
    for i = l.c, 1, -1 do l.n[i] = i > passed and l.n[i - passed] or 0 end
    l.at = at
  end
end

local function sum(l)
  local used = 0
  for i = 1, l.c do used = used + l.n[i] end
  return used
end

function sliding.fits(l, n)
  return sum(l) + n <= l.d
end

function sliding.wait(l, n, t)
  local missing = sum(l) + n - l.d
  if missing <= 0 then return 0 end
  for i = l.c, 1, -1 do
    missing = missing - l.n[i]
    if missing <= 0 then return (l.at + l.c - i + 1) * l.b - t end
  end
end

function sliding.take(l)
  l.n[1] = l.n[1] + l.cost
end

function sliding.count(l, n, t)
  sliding.move(l, t)
  l.n[1] = l.n[1] + max(0, min(n, 2 * l.d - sum(l)))
end

function sliding.save(l)
  local form = '>dd' .. string.rep('I4', l.c)
  call('SET', l.key, pack(form, l.at, l.b, unpack(l.n, 1, l.c)), 'PX', lifetime((l.at + l.c) * l.b - now))
end

function sliding.tell(l)
  for i = 1, l.c do
    if l.n[i] > 0 then return sum(l), (l.at + l.c - i + 1) * l.b - now end
  end
  return 0, 0
end

KINDS[3], KINDS[4] = fixed, sliding
