-- Exact spans of time, at any rate, and what each kind of limit can do.
--
-- A bucket drains L parts in a microsecond, and a token is P parts. A span is q whole microseconds and r parts, with
-- 0 <= r < L: both stay far below 2^53, where doubles are exact, although q * L + r need not.
local call, pack, unpack_at = redis.call, struct.pack, struct.unpack
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max

local function plus(q, r, q2, r2, L)
  q, r = q + q2, r + r2
  if r >= L then return q + 1, r - L end
  return q, r
end

-- Below nothing it is nothing.
local function minus(q, r, q2, r2, L)
  q, r = q - q2, r - r2
  if r < 0 then q, r = q - 1, r + L end
  if q < 0 then return 0, 0 end
  return q, r
end

local function more(q, r, q2, r2)
  return q > q2 or (q == q2 and r > r2)
end

-- n tokens, each of q microseconds and r parts; n below 2^31, and r, L below 2^41. Ten bits of n at a time.
local function times(n, q, r, L)
  if n == 1 then return q, r end
  local all_q, all_r, place = 0, 0, 1073741824
  while place >= 1 do
    local digit = floor(n / place) % 1024
    all_r = all_r * 1024 + digit * r
    local carry = floor(all_r / L)
    all_q, all_r = all_q * 1024 + digit * q + carry, all_r - carry * L
    place = place / 1024
  end
  return all_q, all_r
end

-- Milliseconds for PX and PEXPIRE: rounded up, and a second more, so never 0.
local function lifetime(us)
  return ceil(max(us, 0) / 1000) + 1000
end

-- A limit l: its key, and seven numbers from the client.
--   token bucket    a = L   b, c = a token as a span   d = burst   e, f = the burst as a span
--   leaky bucket    a = L   b, c = a unit as a span    d = queue + 1   e, f = as many units as a span
--   fixed window    d = amount   b = length
--   sliding window  d = amount   b = length of a bucket   c = number of buckets, the partial one included
--   sliding log     d = amount   b = length
--   cost            -1 where the caller asks nothing of this limit
-- All times are microseconds. l.held is how much is held of it.
--
-- Each kind has
--   load(l)           reads the state as it was left
--   move(l, t)        lets time pass until t
--   fits(l, n)        whether n is admitted
--   wait(l, n, t)     how long after t until n is admitted, n within the capacity; the state is that at t
--   take(l)           counts the cost
--   count(l, n, t)    counts n that nobody was asked about, at t: into debt, down to one capacity
--   save(l)           writes the state, with a lifetime
--   tell(l)           two numbers for the client: of buckets what is used, of windows what and for how long
local KINDS = {}
