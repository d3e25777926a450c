-- Leases of one key, at most so many at a time: a unit without limits, whose one key is a sorted set.
--   8 bytes   a holder's token; its score is when his lease ends
--   ''        its score is the latest instant that was seen. When the clock was set back, all ends go back with it:
--             nobody gains and nobody loses by it
-- What an op wants besides: the token (8 bytes), the length of a lease, the most that may be inside (doubles).
-- A renewal tells 0: lost, 1: kept, 2: taken again.
local leases = {}

-- Drops those that have run out, and the mark; how many are inside.
local function inside(u)
  local last = tonumber(call('ZSCORE', u.holds, '') or now)
  if last > now then
    local all = call('ZRANGE', u.holds, 0, -1, 'WITHSCORES')
    for i = 1, #all, 2 do call('ZADD', u.holds, all[i + 1] - (last - now), all[i]) end
  end
  call('ZREMRANGEBYSCORE', u.holds, '-inf', now)
  return call('ZCARD', u.holds)
end

-- How long until the one in this place has gone: 0 is the first to go, -1 the last.
local function until_gone(u, place)
  local found = call('ZRANGE', u.holds, place, place, 'WITHSCORES')
  return found[2] and found[2] - now or 0
end

-- Puts the mark, if anybody is inside; how long until all have gone.
local function mark(u)
  local rest = until_gone(u, -1)
  if rest > 0 then
    call('ZADD', u.holds, now, '')
    call('PEXPIRE', u.holds, lifetime(rest))
  end
  return rest
end

-- Tells whether he is admitted, how many are inside, how long until there is room, and until all have gone.
function leases.enter(u, token, length, most)
  local n, ok, wait = inside(u), 0, 0
  if n < most then
    call('ZADD', u.holds, now + length, token)
    n, ok = n + 1, 1
  else
    wait = until_gone(u, n - most)
  end
  return pack('>Bddd', ok, n, wait, mark(u))
end

-- Tells what became of it.
function leases.renew(u, token, length, most)
  local n, code = inside(u), 0
  if call('ZSCORE', u.holds, token) then code = 1 elseif n < most then code = 2 end
  if code > 0 then call('ZADD', u.holds, now + length, token) end
  mark(u)
  return pack('>B', code)
end

-- Tells 1 if it was live.
function leases.release(u, token)
  inside(u)
  local was_live = call('ZREM', u.holds, token)
  mark(u)
  return pack('>B', was_live)
end

-- Tells what `enter` would.
function leases.look(u, _, _, most)
  local n, wait = inside(u), 0
  if n >= most then wait = until_gone(u, n - most) end
  return pack('>Bddd', n < most and 1 or 0, n, wait, mark(u))
end

function leases.vacate(u)
  call('DEL', u.holds)
  return ''
end
