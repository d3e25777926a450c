-- Sliding log: exact, every take with its instant. The state: a head of 24 bytes, then 16 for each take, oldest first.
--   head 1  how many of the takes have left the window (a double, as all here)
--   head 2  the sum of their costs, and of all that were cut off before
--   head 3  added to each instant: how far the server's clock was set back
--   take 1  its instant    take 2  the sum of all costs up to it, itself included
-- Takes are appended; those that have left are cut off when they are the half. Sums let the rest be found by halving.
local log = {}

local function entry(l, i)
  return unpack_at('>dd', l.s, 25 + 16 * i)
end

-- The first of the takes from number `low` on for which `found` holds; l.many if for none.
local function first(l, low, found)
  local high = l.many
  while low < high do
    local middle = floor((low + high) / 2)
    if found(entry(l, middle)) then high = middle else low = middle + 1 end
  end
  return low
end

function log.load(l)
  local s = call('GET', l.key)
  l.new, l.s = not s, s or pack('>ddd', 0, 0, 0)
  l.gone, l.before, l.shift = unpack_at('>ddd', l.s)
  l.many = (#l.s - 24) / 16
  l.appended, l.patched, l.whole = nil, nil, nil
end

function log.move(l, t)
  if l.many > 0 and t == now then
    local last = entry(l, l.many - 1)
    if last + l.shift > now then l.shift, l.dirty = now - last, true end
  end
  local edge = t - l.b - l.shift
  local gone = first(l, l.gone, function(at) return at > edge end)
  if gone > l.gone then
    local _, before = entry(l, gone - 1)
    l.gone, l.before = gone, before
  end
end

local function used(l)
  if l.gone == l.many then return 0 end
  local _, sum = entry(l, l.many - 1)
  return sum - l.before
end

local function add(l, n, t)
  if n <= 0 then return end
  t = t - l.shift
  local last, sum = 0, l.before
  if l.gone < l.many then last, sum = entry(l, l.many - 1) end
  if l.gone < l.many and last >= t then
    l.s = l.s:sub(1, -9) .. pack('>d', sum + n)
    l.patched, l.whole = true, l.appended
  else
    local one = pack('>dd', t, sum + n)
    l.s, l.many, l.whole = l.s .. one, l.many + 1, l.patched or l.appended
    l.appended = one
  end
end

function log.fits(l, n)
  return used(l) + n <= l.d
end

function log.wait(l, n, t)
  local missing = used(l) + n - l.d
  if missing <= 0 then return 0 end
  local enough = l.before + missing
  local at = entry(l, first(l, l.gone, function(_, sum) return sum >= enough end))
  return at + l.shift + l.b - t
end

function log.take(l)
  add(l, l.cost, now)
end

function log.count(l, n, t)
  log.move(l, t)
  add(l, min(n, 2 * l.d - used(l)), t)
end

function log.save(l)
  if l.gone == l.many then
    call('DEL', l.key)
    return
  end
  local stays = lifetime(entry(l, l.many - 1) + l.shift + l.b - now)
  if l.new or l.whole or l.gone * 2 > l.many then
    call('SET', l.key, pack('>ddd', 0, l.before, l.shift) .. l.s:sub(25 + 16 * l.gone), 'PX', stays)
    return
  end
  if l.appended then call('APPEND', l.key, l.appended) end
  if l.patched then call('SETRANGE', l.key, #l.s - 8, l.s:sub(-8)) end
  call('SETRANGE', l.key, 0, pack('>ddd', l.gone, l.before, l.shift))
  call('PEXPIRE', l.key, stays)
end

function log.tell(l)
  if l.gone == l.many then return 0, 0 end
  return used(l), entry(l, l.many - 1) + l.shift + l.b - now
end

KINDS[5] = log
