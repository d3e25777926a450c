-- A call: KEYS are those of all units in turn, ARGV[1] is what they want, and the answer is theirs in turn; binary.
--   a unit     its length in bytes with these two; op; n limits; whether there is a key of holds (H B B B)
--              how long holds are kept beyond their end (a double)
--              n limits: kind (B), a, b, c, d, e, f, cost (doubles)
--              what its op wants besides
--   its keys   those of the n limits, then that of the holds if there is one, or of what else its op is about
--   an answer  0, and what the op tells; or 1, a length (I4) and the text of an error
-- Each unit is all or nothing, and sees what the units before it wrote.
local PEEK, TAKE, HOLD, SETTLE, FORGET, QUEUE_UP, LEAVE, NODES = 0, 1, 2, 3, 4, 5, 6, 7
local ENTER, RENEW, RELEASE, LOOK, VACATE = 8, 9, 10, 11, 12
local wants, next_key = ARGV[1], 1

-- One unit, and as many limits as the longest had: made once, used for each unit in turn.
local unit, limits = {}, {}

local function read_unit(at)
  local u = unit
  local _, op, n, holds, keep, place = unpack_at('>HBBBd', wants, at)
  u.op, u.n, u.keep, u.extra = op, n, keep, place + 57 * n
  u.holds, u.first, u.last, u.stay = nil, nil, nil, nil
  for i = 1, n do
    local l, kind = limits[i] or {}
    limits[i], u[i] = l, l
    kind, l.a, l.b, l.c, l.d, l.e, l.f, l.cost, place = unpack_at('>Bddddddd', wants, place)
    l.key, l.kind, l.held, l.ok, l.dirty, l.loaded = KEYS[next_key], KINDS[kind], 0, false, false, false
    next_key = next_key + 1
  end
  if holds == 1 then
    u.holds, next_key = KEYS[next_key], next_key + 1
  end
  return u
end

-- Reads everything before anything is written, so that a unit that fails has changed nothing.
local function load(u)
  load_holds(u)
  local ended = u.first and u.first <= now
  for i = 1, u.n do
    local l = u[i]
    if l.cost >= 0 or ended then
      l.kind.load(l)
      l.loaded = true
    end
  end
  if ended then
    count_ended(u)
    keep_holds(u, u.stay)
  end
  for i = 1, u.n do
    if u[i].loaded then u[i].kind.move(u[i], now) end
  end
end

local function save(u)
  for i = 1, u.n do
    if u[i].dirty then u[i].kind.save(u[i]) end
  end
end

-- Of one limit: whether it admits (2: it was not asked), two numbers, how long to wait, what is held.
local function told_of(u, i)
  local l = u[i]
  if l.cost < 0 then return pack('>Bdddd', 2, 0, 0, 0, 0) end
  local x, y = l.kind.tell(l)
  if l.ok then return pack('>Bdddd', 1, x, y, 0, l.held) end
  local wait = l.held > 0 and wait_behind_holds(u, l, i) or l.kind.wait(l, l.cost, now)
  return pack('>Bdddd', 0, x, y, wait, l.held)
end

local function told(u)
  if u.n == 1 then return told_of(u, 1) end
  local lines = {}
  for i = 1, u.n do lines[i] = told_of(u, i) end
  return table.concat(lines)
end

local function ask(u)
  local good = true
  for i = 1, u.n do
    local l = u[i]
    if l.cost >= 0 then
      l.ok = l.kind.fits(l, l.cost + l.held)
      good = good and l.ok
    end
  end
  if u.op == TAKE and good then
    for i = 1, u.n do
      local l = u[i]
      if l.cost > 0 then
        l.kind.take(l)
        l.dirty = true
      end
    end
  end
  local answer = told(u)
  save(u)
  return answer, good
end

local OPS = {[PEEK] = ask, [TAKE] = ask}

-- Sets the costs aside. Tells as well whether it did, and if there are too many holds how long until one ends.
OPS[HOLD] = function(u)
  local answer, good = ask(u)
  local wait, name, lasts = 0, unpack_at('>c8d', wants, u.extra)
  if good and not add_hold(u, name, now + lasts) then good, wait = false, u.first - now end
  return answer .. pack('>Bd', good and 1 or 0, wait)
end

-- Ends a hold; the costs are what was used. Tells 1 if it was still open.
OPS[SETTLE] = function(u)
  local open = end_hold(u, (unpack_at('>c8', wants, u.extra)))
  if open then
    for i = 1, u.n do
      local l = u[i]
      if l.cost > 0 then
        l.kind.count(l, l.cost, now)
        l.dirty = true
      end
    end
  end
  save(u)
  return pack('>B', open and 1 or 0)
end

-- Forgets what was used; what is held stays held.
OPS[FORGET] = function(u)
  for i = 1, u.n do call('DEL', u[i].key) end
  return ''
end

-- The next slot of a leaky bucket, if the wait is at most so long. Tells whether, the wait, and the state after.
OPS[QUEUE_UP] = function(u)
  local l = u[1]
  local wait = leaky.queue_up(l, (unpack_at('>d', wants, u.extra)))
  if wait then l.dirty = true end
  save(u)
  return pack('>Bdddd', wait and 1 or 0, wait or 0, l.at, l.q, l.r)
end

-- Frees a slot that nobody has one behind: when the state is as it was right after it was handed out.
OPS[LEAVE] = function(u)
  local l = u[1]
  local at, q, r = unpack_at('>ddd', wants, u.extra)
  if l.at + l.q == at + q and l.r == r then
    leaky.give_back(l)
    l.dirty = true
  end
  save(u)
  return ''
end

-- Says that a process is there, by its name of 8 bytes, and tells how many were in the last ten seconds.
OPS[NODES] = function(u)
  call('ZREMRANGEBYSCORE', u.holds, '-inf', now - 10000000)
  call('ZREMRANGEBYSCORE', u.holds, now + 1, '+inf')
  call('ZADD', u.holds, now, (unpack_at('>c8', wants, u.extra)))
  call('PEXPIRE', u.holds, lifetime(10000000))
  return pack('>d', call('ZCARD', u.holds))
end

for op, step in pairs({[ENTER] = leases.enter, [RENEW] = leases.renew, [RELEASE] = leases.release, [LOOK] = leases.look}) do
  OPS[op] = function(u) return step(u, unpack_at('>c8dd', wants, u.extra)) end
end
OPS[VACATE] = leases.vacate

local function run(at)
  local u = read_unit(at)
  if u.op < NODES and u.op ~= FORGET then load(u) end
  return OPS[u.op](u)
end

local answers, at = {}, 1
while at <= #wants do
  local good, answer = pcall(run, at)
  if good then
    answers[#answers + 1] = '\0'
    answers[#answers + 1] = answer
  else
    local text = tostring(type(answer) == 'table' and answer.err or answer)
    answers[#answers + 1] = pack('>BI4', 1, #text) .. text
  end
  at = at + unpack_at('>H', wants, at)
end
return table.concat(answers)
