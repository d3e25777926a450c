-- The steps of an outbox: each is one call, atomic, and costs the same whatever the backlog (but for a logarithm).
-- KEYS[1] is the prefix of all keys, with the hash tag in it. ARGV[1] is the step, ARGV[2] the caller's clock in tests.
--
-- Keys
--   id            hash    id -> n: the number in the order of arrival under which a record is kept
--   r:<n>         hash    the record (fields below)
--   held          zset    n by n: all that wait or are leased
--   line:<q>:<o>  zset    of one operation and priority: what may be leased, by the instant from when
--   lines         set     the names of these that hold something
--   leased        zset    n by the end of the lease
--   order:<key>   zset    n by n: what has this order key; only the first is in line
--   dead, dropped zset    n by the order in which they came there
--   counts        hash    n, dead, dropped, news
--
-- An instant is in nanoseconds, which a double does not hold: it is a string, or microseconds and a rest of 0 to 999.
-- In sorted sets the score is the microseconds, and the member is the rest (3 digits) and n (16 digits): members of one
-- score are ordered by their text, so the order is exact.
--
-- Fields of a record: i id, o operation, q priority, d due, c created, x expires, l life (x - c), a attempts, y order
-- key, k idempotency key, z criticality, e last error, f why it ended, p payload; and t token, u its member in `leased`,
-- w its member in its line. Empty is absent.
local P, call = KEYS[1], redis.call
local HELD, LEASED, DEAD, DROPPED, LINES, COUNTS = P .. 'held', P .. 'leased', P .. 'dead', P .. 'dropped', P .. 'lines',
  P .. 'counts'
local MOST_LISTED, MOST_AT_ONCE = 1000, 500

local function instant(text) return tonumber(text:sub(1, -4)) or 0, tonumber(text:sub(-3)) or 0 end
local function text_of(us, rest) return string.format('%.0f%03d', us, rest) end
local function member(rest, n) return string.format('%03d%016.0f', rest, tonumber(n)) end
local function n_of(m) return string.format('%.0f', tonumber(m:sub(4))) end
local function rest_of(m) return tonumber(m:sub(1, 3)) end

local now, now_rest
if ARGV[2] ~= '' then
  now, now_rest = instant(ARGV[2])
else
  local time = call('TIME')
  now, now_rest = tonumber(time[1]) * 1000000 + tonumber(time[2]), 0
end
local function has_come(us, rest) return us < now or (us == now and rest <= now_rest) end
local function wait_for(us, rest) return math.max(0, (us - now) * 1000 + rest - now_rest) end

-- When something is due. The clocks of hosts are not the server's: what has come by the caller's has come.
local function due(at, came)
  local us, rest = instant(at)
  if has_come(us, rest) then return at end
  local came_us, came_rest = instant(came)
  if us < came_us or (us == came_us and rest <= came_rest) then return text_of(now, now_rest) end
  return at
end

local function record(n) return P .. 'r:' .. n end
local function line_of(o, q) return P .. 'line:' .. q .. ':' .. o end

local function enter(n, us, rest)
  local fields = call('HMGET', record(n), 'o', 'q')
  local line, m = line_of(fields[1], fields[2]), member(rest, n)
  call('ZADD', line, us, m)
  call('SADD', LINES, fields[2] .. ':' .. fields[1])
  call('HSET', record(n), 'w', m)
end

local function leave(n)
  local fields = call('HMGET', record(n), 'o', 'q', 'w')
  if not fields[3] then return end
  local line = line_of(fields[1], fields[2])
  call('ZREM', line, fields[3])
  if call('EXISTS', line) == 0 then call('SREM', LINES, fields[2] .. ':' .. fields[1]) end
  call('HDEL', record(n), 'w')
end

local function end_lease(n)
  local m = call('HGET', record(n), 'u')
  if m then
    call('ZREM', LEASED, m)
    call('HDEL', record(n), 'u')
  end
end

-- Out of all that is held; the next of its order key may go.
local function lose(n)
  leave(n)
  end_lease(n)
  call('ZREM', HELD, n)
  local key = call('HGET', record(n), 'y')
  if not key then return end
  local order = P .. 'order:' .. key
  call('ZREM', order, n)
  local first = call('ZRANGE', order, 0, 0)[1]
  if first then
    local fields = call('HMGET', record(first), 'u', 'w', 'd')
    if not fields[1] and not fields[2] then enter(first, instant(fields[3])) end
  end
end

local function forget(n)
  call('HDEL', P .. 'id', call('HGET', record(n), 'i'))
  call('DEL', record(n))
end

-- Into the backlog as the last to come.
local function hold(n)
  call('ZADD', HELD, n, n)
  local fields = call('HMGET', record(n), 'y', 'd')
  if fields[1] then
    local order = P .. 'order:' .. fields[1]
    call('ZADD', order, n, n)
    if call('ZCARD', order) > 1 then return end
  end
  enter(n, instant(fields[2]))
end

local function oldest_waiting(after)
  local at = after or 0
  while true do
    local some = call('ZRANGE', HELD, at, at + 99)
    for _, n in ipairs(some) do
      at = at + 1
      if call('HEXISTS', record(n), 'u') == 0 then return n, at end
    end
    if #some < 100 then return nil end
  end
end

local function drop(n)
  if call('ZSCORE', DEAD, n) then call('ZREM', DEAD, n) else lose(n) end
  call('HDEL', P .. 'id', call('HGET', record(n), 'i'))
  call('HSET', record(n), 'f', 'backlog', 'p', '')
  call('HDEL', record(n), 't')
  local number = call('HINCRBY', COUNTS, 'dropped', 1)
  call('ZADD', DROPPED, number, n)
  local over = call('ZCARD', DROPPED) - MOST_LISTED
  if over > 0 then
    for _, old in ipairs(call('ZRANGE', DROPPED, 0, over - 1)) do call('DEL', record(old)) end
    call('ZREMRANGEBYRANK', DROPPED, 0, over - 1)
  end
  return call('HGETALL', record(n))
end

local function total() return call('ZCARD', HELD) + call('ZCARD', DEAD) end
local function news() call('HINCRBY', COUNTS, 'news', 1) end

-- A record that somebody else has leased since, or that is settled, answers to its token no more.
local function whose(token)
  local n = token:match('^(%d+)%.')
  return n and call('HGET', record(n), 't') == token and n or nil
end

local function expire()
  local run_out = call('ZRANGEBYSCORE', LEASED, '-inf', string.format('%.0f', now), 'WITHSCORES', 'LIMIT', 0, MOST_AT_ONCE)
  for i = 1, #run_out, 2 do
    if has_come(tonumber(run_out[i + 1]), rest_of(run_out[i])) then
      local n = n_of(run_out[i])
      end_lease(n)
      enter(n, now, now_rest)
    end
  end
  return #run_out == 2 * MOST_AT_ONCE
end

local function first_of(set)
  local first = call('ZRANGE', set, 0, 0, 'WITHSCORES')
  if first[1] then return tonumber(first[2]), rest_of(first[1]) end
end

-- q descending, then the instant, then n.
local function goes_before(a, b)
  if a.q ~= b.q then return a.q > b.q end
  if a.us ~= b.us then return a.us < b.us end
  return a.m < b.m
end

local steps = {}

-- most, drops, the caller's clock, then the fields and values of a record. Tells 'there', 'full' and how full, or what was dropped.
function steps.put(most, drops, came, id, ...)
  local there = call('HGET', P .. 'id', id)
  if there then
    -- WAIT and WAITAOF speak of what their own connection has written: so it writes this again. HDEL goes first, since
    -- a server that is full lets a script go on that began by removing something.
    call('HDEL', P .. 'id', id)
    call('HSET', P .. 'id', id, there)
    return {'there'}
  end
  most = tonumber(most)
  local excess, victims = total() + 1 - most, {}
  if excess > 0 then
    local dead = call('ZCARD', DEAD)
    local waiting = call('ZCARD', HELD) - call('ZCARD', LEASED)
    if drops ~= '1' or dead + waiting < excess then return {'full', total(), dead} end
    for _, n in ipairs(call('ZRANGE', DEAD, 0, excess - 1)) do victims[#victims + 1] = n end
    local at, n = 0, nil
    while #victims < excess do
      n, at = oldest_waiting(at)
      victims[#victims + 1] = n
    end
  end
  local told = {'put'}
  for _, n in ipairs(victims) do told[#told + 1] = drop(n) end
  local n = string.format('%.0f', call('HINCRBY', COUNTS, 'n', 1))
  call('HSET', record(n), 'i', id, ...)
  call('HSET', record(n), 'd', due(call('HGET', record(n), 'd'), came))
  call('HSET', P .. 'id', id, n)
  hold(n)
  news()
  return told
end

-- n, length (microseconds, rest), the end of tokens, then operations to leave alone.
-- Tells after how many nanoseconds it is worth asking again ('' if nothing is held), then token, end and record of each.
function steps.lease(most, length_us, length_rest, nonce, ...)
  local more, skip = expire(), {}
  for _, name in ipairs({...}) do skip[name] = true end
  most = tonumber(most)
  local found, waits = {}, {}
  if more then waits[1] = 0 end
  for _, name in ipairs(call('SMEMBERS', LINES)) do
    local q, o = name:match('^(%d+):(.*)$')
    if not skip[o] then
      local line = call('ZRANGE', line_of(o, q), 0, most, 'WITHSCORES')
      for i = 1, #line, 2 do
        local us, rest = tonumber(line[i + 1]), rest_of(line[i])
        if not has_come(us, rest) then
          waits[#waits + 1] = wait_for(us, rest)
          break
        end
        found[#found + 1] = {q = tonumber(q), us = us, m = line[i]}
      end
    end
  end
  table.sort(found, goes_before)
  if #found > most then waits[#waits + 1] = 0 end
  local rest = now_rest + tonumber(length_rest)
  local us = now + tonumber(length_us) + math.floor(rest / 1000)
  rest = rest % 1000
  local told = {''}
  for i = 1, math.min(most, #found) do
    local n = n_of(found[i].m)
    leave(n)
    local m, token = member(rest, n), n .. '.' .. nonce
    call('ZADD', LEASED, us, m)
    call('HINCRBY', record(n), 'a', 1)
    call('HSET', record(n), 't', token, 'u', m)
    told[#told + 1] = {token, text_of(us, rest), call('HGETALL', record(n))}
  end
  local end_us, end_rest = first_of(LEASED)
  if end_us then waits[#waits + 1] = wait_for(end_us, end_rest) end
  local soonest = waits[1]
  for _, wait in ipairs(waits) do soonest = math.min(soonest, wait) end
  if soonest then told[1] = string.format('%.0f', soonest) end
  return told
end

function steps.renew(token, length_us, length_rest)
  local n = whose(token)
  if not n then return 0 end
  leave(n) -- if it had run out, and nobody has leased it since
  end_lease(n)
  local rest = now_rest + tonumber(length_rest)
  local us = now + tonumber(length_us) + math.floor(rest / 1000)
  local m = member(rest % 1000, n)
  call('ZADD', LEASED, us, m)
  call('HSET', record(n), 'u', m)
  return 1
end

function steps.ack(token)
  local n = whose(token)
  if not n then return 0 end
  lose(n)
  forget(n)
  news()
  return 1
end

-- Due again at an instant; the caller's clock; whether the attempt counts; the error, if there is one.
function steps.again(token, at, came, counts, error)
  local n = whose(token)
  if not n then return 0 end
  at = due(at, came)
  leave(n)
  end_lease(n)
  call('HDEL', record(n), 't')
  call('HSET', record(n), 'd', at)
  if counts ~= '1' then call('HINCRBY', record(n), 'a', -1) end
  if error then call('HSET', record(n), 'e', error) end
  enter(n, instant(at))
  news()
  return 1
end

function steps.bury(token, why, error)
  local n = whose(token)
  if not n then return 0 end
  lose(n)
  call('HDEL', record(n), 't')
  call('HSET', record(n), 'f', why, 'e', error)
  call('ZADD', DEAD, call('HINCRBY', COUNTS, 'dead', 1), n)
  news()
  return 1
end

function steps.stats()
  local oldest = call('ZRANGE', HELD, 0, 0)[1]
  local leased = call('ZCARD', LEASED)
  return {call('ZCARD', HELD) - leased, leased, call('ZCARD', DEAD), tonumber(call('HGET', COUNTS, 'dropped') or 0),
    oldest and call('HGET', record(oldest), 'c') or ''}
end

-- Whether the server might lose what it has; '' if the user may not ask.
function steps.look()
  local told = {}
  for i, part in ipairs({'persistence', 'memory'}) do
    local found = redis.pcall('INFO', part)
    told[i] = type(found) == 'string' and found or ''
  end
  return told
end

function steps.news() return tonumber(call('HGET', COUNTS, 'news') or 0) end

-- At most so many records of a state, after one of them; a part of it if `waiting` has much else among it.
function steps.page(state, limit, after)
  limit = tonumber(limit)
  local found = {}
  if state == 'leased' then
    local all = {}
    for _, m in ipairs(call('ZRANGE', LEASED, 0, -1)) do all[#all + 1] = tonumber(n_of(m)) end
    table.sort(all)
    for _, n in ipairs(all) do
      if n > tonumber(after) and #found < limit then found[#found + 1] = string.format('%.0f', n) end
    end
  elseif state == 'waiting' then
    local at = '(' .. after
    while #found < limit do
      local some = call('ZRANGEBYSCORE', HELD, at, '+inf', 'LIMIT', 0, limit)
      for _, n in ipairs(some) do
        if #found < limit and call('HEXISTS', record(n), 'u') == 0 then found[#found + 1] = n end
      end
      if #some < limit then break end
      at = '(' .. some[#some]
    end
  else
    found = call('ZRANGEBYSCORE', P .. state, '(' .. after, '+inf', 'LIMIT', 0, limit)
  end
  local told = {}
  for i, n in ipairs(found) do told[i] = call('HGETALL', record(n)) end
  return told
end

-- Where the record of an id stands in a state, to go on after it; '' if it is not there any more.
function steps.place(state, id)
  if state == 'dropped' then
    for _, n in ipairs(call('ZRANGE', DROPPED, 0, -1)) do
      if call('HGET', record(n), 'i') == id then return call('ZSCORE', DROPPED, n) end
    end
    return ''
  end
  local n = call('HGET', P .. 'id', id)
  if not n then return '' end
  if state == 'dead' then return call('ZSCORE', DEAD, n) or '' end
  return n
end

function steps.find(id)
  local n = call('HGET', P .. 'id', id)
  return n and call('HGETALL', record(n)) or {}
end

-- Dead letters are due again now, as if newly put: those with these ids, or without any the first so many.
function steps.replay(limit, ...)
  local chosen = {}
  if limit ~= '' then chosen = call('ZRANGE', DEAD, 0, tonumber(limit) - 1) end
  for _, id in ipairs({...}) do
    local n = call('HGET', P .. 'id', id)
    if n and call('ZSCORE', DEAD, n) then chosen[#chosen + 1] = n end
  end
  table.sort(chosen, function(a, b) return tonumber(call('ZSCORE', DEAD, a)) < tonumber(call('ZSCORE', DEAD, b)) end)
  for _, old in ipairs(chosen) do
    call('ZREM', DEAD, old) -- first of all: see `put`
    local n = string.format('%.0f', call('HINCRBY', COUNTS, 'n', 1))
    call('RENAME', record(old), record(n))
    local fields = call('HMGET', record(n), 'i', 'l')
    local us, rest = instant(string.rep('0', 4) .. fields[2])
    us, rest = now + us, now_rest + rest
    if rest > 999 then us, rest = us + 1, rest - 1000 end
    local at = text_of(now, now_rest)
    call('HSET', P .. 'id', fields[1], n)
    call('HSET', record(n), 'a', 0, 'c', at, 'd', at, 'x', text_of(us, rest))
    call('HDEL', record(n), 'f')
    hold(n)
  end
  news()
  return #chosen
end

-- Forgets records of a state that are not leased: those with these ids, or without any some of them from the first on.
-- Tells how many, and whether there may be more.
function steps.purge(state, all, ...)
  local more, chosen = 0, {}
  local set = state == 'waiting' and HELD or P .. state
  if all == '1' then
    if state == 'waiting' then
      local at, n = 0, nil
      while #chosen < MOST_AT_ONCE do
        n, at = oldest_waiting(at)
        if not n then break end
        chosen[#chosen + 1] = n
      end
    else
      chosen = call('ZRANGE', set, 0, MOST_AT_ONCE - 1)
    end
    more = #chosen == MOST_AT_ONCE and 1 or 0
  else
    local wanted = {}
    for _, id in ipairs({...}) do wanted[id] = true end
    if state == 'dropped' then
      for _, n in ipairs(call('ZRANGE', set, 0, -1)) do
        if wanted[call('HGET', record(n), 'i')] then chosen[#chosen + 1] = n end
      end
    else
      for id in pairs(wanted) do
        local n = call('HGET', P .. 'id', id)
        if n and call('ZSCORE', set, n) and call('HEXISTS', record(n), 'u') == 0 then chosen[#chosen + 1] = n end
      end
    end
  end
  for _, n in ipairs(chosen) do
    if state == 'waiting' then lose(n) else call('ZREM', set, n) end
    if state == 'dropped' then call('DEL', record(n)) else forget(n) end
  end
  news()
  return {#chosen, more}
end

return steps[ARGV[1]](unpack(ARGV, 3))
