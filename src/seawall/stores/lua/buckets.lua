-- Token bucket and leaky bucket. The state: four doubles, 32 bytes.
--   1  the instant of the last write
--   2, 3  how long from then until nothing is used: a span (of the leaky bucket: until the next slot is free)
--   4  microseconds for a token: a client with other numbers keeps the level in tokens, or the slots in time
local bucket = {}

function bucket.load(l)
  local s = call('GET', l.key)
  l.at, l.q, l.r, l.each = 0, 0, 0, l.b + l.c / l.a
  if not s then return end
  local at, q, r, each = unpack_at('>dddd', s)
  l.at, l.q, l.r = at, q, r
  if each ~= l.each then
    -- Up to now time passed at the rate of those numbers.
    l.at, l.r = now, 0
    l.kind.change(l, (r > 0 and q + 1 or q) - max(0, now - at), each)
  end
end

function bucket.move(l, t)
  local passed = t - l.at
  if passed < 0 then
    -- The clock of the server went back: what is used stays used, and drains from here on.
    if t == now then l.at, l.dirty = now, true end
    return
  end
  l.at, l.q = t, l.q - passed
  if l.q < 0 then l.q, l.r = 0, 0 end
end

function bucket.take(l)
  local q, r = times(l.cost, l.b, l.c, l.a)
  l.q, l.r = plus(l.q, l.r, q, r, l.a)
end

function bucket.count(l, n, t)
  bucket.move(l, t)
  local q, r = times(min(n, 2 * l.d), l.b, l.c, l.a)
  q, r = plus(l.q, l.r, q, r, l.a)
  local most_q, most_r = plus(l.e, l.f, l.e, l.f, l.a)
  if more(q, r, most_q, most_r) then q, r = most_q, most_r end
  l.q, l.r = q, r
end

function bucket.save(l)
  call('SET', l.key, pack('>dddd', l.at, l.q, l.r, l.each), 'PX', lifetime(l.q + 1))
end

function bucket.tell(l)
  return l.q, l.r
end

-- GCRA: admitted while what is used and the cost are together within the capacity.
local token = setmetatable({}, {__index = bucket})

function token.change(l, q, each)
  q = ceil(max(0, q) / each * l.each)
  l.q = q
  local most_q, most_r = l.e, l.f
  if q > l.d * l.each then most_q, most_r = plus(l.e, l.f, l.e, l.f, l.a) end
  if more(l.q, l.r, most_q, most_r) then l.q, l.r = most_q, most_r end
end

function token.fits(l, n)
  local q, r = times(n, l.b, l.c, l.a)
  q, r = plus(l.q, l.r, q, r, l.a)
  return not more(q, r, l.e, l.f)
end

function token.wait(l, n)
  local q, r = times(n, l.b, l.c, l.a)
  q, r = plus(l.q, l.r, q, r, l.a)
  q, r = minus(q, r, l.e, l.f, l.a)
  return r > 0 and q + 1 or q
end

-- Evenly spaced: admitted at once when the next slot is free. `queue_up` hands out a later one, and tells the wait.
local leaky = setmetatable({}, {__index = bucket})

-- Slots that are handed out stay where they are; the next is a new step behind the last.
function leaky.change(l, q, each)
  l.q, l.r = plus(ceil(q - each), 0, l.b, l.c, l.a)
  if l.q < 0 then l.q, l.r = 0, 0 end
end

function leaky.fits(l, n)
  return n == 0 or (l.q == 0 and l.r == 0)
end

function leaky.wait(l, n)
  return n == 0 and 0 or l.r > 0 and l.q + 1 or l.q
end

function leaky.queue_up(l, most)
  local wait = leaky.wait(l, 1)
  local q, r = times(l.d - l.cost, l.b, l.c, l.a)
  if wait > most or (wait > 0 and more(l.q, l.r, q, r)) then return nil end
  bucket.take(l)
  return wait
end

function leaky.give_back(l)
  local q, r = times(l.cost, l.b, l.c, l.a)
  l.q, l.r = minus(l.q, l.r, q, r, l.a)
end

KINDS[1], KINDS[2] = token, leaky
