-- The server's clock in whole microseconds: the one clock that all clients share. Exact in a double until the year 2255.
local function server_time()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
local now = server_time()
