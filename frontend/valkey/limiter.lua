#!lua name=hm2_limit_@

-- Limits that all processes of the service count together. The arithmetic is that of frontend/services/limits/rates.py, and a
-- test holds the two together. Numbers are doubles here, and exact: limits are at most 5e7 a minute (domain/limits.py), so that
-- nothing exceeds 2^53.
--
-- Of each subject (a key, a tenant) there are two keys: what it owes, as "<when, us> <requests> <tokens>" in units of which one
-- request or token has MINUTE; and its leases, a sorted set of ids with the times when they end.

local MINUTE, BURST = 60000000, 10000000
local CONCURRENCY_RETRY = 1000000
-- Longer than that of anything else in this Valkey: with volatile-ttl these go last when memory is short.
local TTL = '7200'

local function now_us()
  local time = server.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function write(key, now, owed)
  server.call('SET', key, string.format('%.0f %.0f %.0f', now, owed[1], owed[2]), 'EX', TTL)
end

-- limit -1: there is none.
local function drained(owed, limit, elapsed)
  if limit < 0 then return 0 end
  return math.max(0, math.min(owed, limit * MINUTE) - limit * elapsed)
end

local function read(key, now, limits)
  local at, requests, tokens = string.match(server.call('GET', key) or '', '^(%d+) (%d+) (%d+)$')
  if not at then return {0, 0} end
  at, requests, tokens = tonumber(at), tonumber(requests), tonumber(tokens)
  local elapsed = math.min(now - at, MINUTE)
  if elapsed < 0 then  -- the server's clock was put back: what is owed is owed from now on
    elapsed = 0
    write(key, now, {requests, tokens})
  end
  return {drained(requests, limits[1], elapsed), drained(tokens, limits[2], elapsed)}
end

-- 0: now. -1: never.
local function wait(owed, limit, cost)
  if limit < 0 or cost == 0 then return 0 end
  if cost > limit then return -1 end
  local excess = owed + cost * MINUTE - limit * BURST
  if owed == 0 or excess <= 0 then return 0 end
  return math.ceil(math.min(owed, excess) / limit)
end

-- So many units more; fewer, where they are negative.
local function owe(owed, limits, units)
  for which = 1, 2 do
    if limits[which] >= 0 then
      owed[which] = math.max(0, math.min(owed[which] + units[which], limits[which] * MINUTE))
    end
  end
end

-- What time has not taken away since a charge that made it `owed` in all.
local function returned(back, owed, limit, elapsed)
  if limit < 0 then return 0 end
  if back <= 0 then return back * MINUTE end
  return math.min(back * MINUTE, math.max(0, owed - limit * elapsed))
end

local function numbers(args, first, count)
  local found = {}
  for i = 1, count do found[i] = tonumber(args[first + i - 1]) end
  return found
end

local function held(key, now)
  server.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  return server.call('ZCARD', key)
end

-- keys: of each subject what it owes, its leases. args: tokens, lease id or "", its time (us), of each subject its three limits.
-- Returns 0, or the subject that refuses, which limit (1 requests, 2 tokens, 3 concurrency), the wait (us; -1: for good), the
-- time (us), and of each subject the requests and the tokens that it owes then.
local function acquire(keys, args)
  local now, tokens, lease = now_us(), tonumber(args[1]), args[2]
  local reply, limits, owed = {0, 0, 0, now}, {}, {}
  for subject = 1, #keys / 2 do
    limits[subject] = numbers(args, 3 * subject + 1, 3)
    owed[subject] = read(keys[2 * subject - 1], now, limits[subject])
    local most, running = limits[subject][3], lease ~= '' and held(keys[2 * subject], now)
    local waits = {wait(owed[subject][1], limits[subject][1], 1), wait(owed[subject][2], limits[subject][2], tokens), 0}
    if running and most >= 0 and running >= most then
      waits[3] = most == 0 and -1 or CONCURRENCY_RETRY
    end
    for which = 1, 3 do
      local longest = reply[3]
      if waits[which] ~= 0 and longest ~= -1 and (waits[which] == -1 or waits[which] > longest) then
        reply = {subject, which, waits[which], now}
      end
    end
  end
  for subject = 1, #keys / 2 do
    if reply[1] == 0 then
      owe(owed[subject], limits[subject], {MINUTE, tokens * MINUTE})
      write(keys[2 * subject - 1], now, owed[subject])
      if lease ~= '' then
        server.call('ZADD', keys[2 * subject], string.format('%.0f', now + tonumber(args[3])), lease)
        server.call('EXPIRE', keys[2 * subject], TTL)
      end
    end
  end
  for subject = 1, #keys / 2 do
    reply[3 + 2 * subject], reply[4 + 2 * subject] = owed[subject][1], owed[subject][2]
  end
  return reply
end

-- keys: as above. args: lease id, requests and tokens that are given back, the time of the charge (us), of each subject its limits
-- of requests and tokens, and what it owed then. Returns how many of the subjects had the lease.
local function settle(keys, args)
  local now, found, back, at = now_us(), 0, numbers(args, 2, 2), tonumber(args[4])
  local elapsed = math.max(0, math.min(now - at, MINUTE))
  for subject = 1, #keys / 2 do
    if server.call('ZREM', keys[2 * subject], args[1]) == 1 then
      local limits, thereby = numbers(args, 4 * subject + 1, 2), numbers(args, 4 * subject + 3, 2)
      local owed = read(keys[2 * subject - 1], now, limits)
      owe(owed, limits, {
        -returned(back[1], thereby[1], limits[1], elapsed),
        -returned(back[2], thereby[2], limits[2], elapsed),
      })
      write(keys[2 * subject - 1], now, owed)
      found = found + 1
    end
  end
  return found
end

-- What a process has granted while this server was away; it is not asked any more. keys: what the subject owes, its leases.
-- args: time of a lease (us), limits of requests and tokens, units of both, then the leases.
-- Returns the time (us), and what the subject owes then.
local function adopt(keys, args)
  local now, limits = now_us(), numbers(args, 2, 2)
  local owed = read(keys[1], now, limits)
  owe(owed, limits, numbers(args, 4, 2))
  write(keys[1], now, owed)
  for i = 6, #args do
    server.call('ZADD', keys[2], string.format('%.0f', now + tonumber(args[1])), args[i])
  end
  server.call('EXPIRE', keys[2], TTL)
  return {now, owed[1], owed[2]}
end

-- keys: sets of leases. args: their time (us), then pairs of a key's number and a lease in it. Those that have ended stay ended.
local function renew(keys, args)
  local ends = string.format('%.0f', now_us() + tonumber(args[1]))
  for pair = 2, #args, 2 do
    server.call('ZADD', keys[tonumber(args[pair])], 'XX', ends, args[pair + 1])
  end
  for _, key in ipairs(keys) do
    server.call('EXPIRE', key, TTL)
  end
  return #keys
end

server.register_function('hm2_limit_@_acquire', acquire)
server.register_function('hm2_limit_@_settle', settle)
server.register_function('hm2_limit_@_adopt', adopt)
server.register_function('hm2_limit_@_renew', renew)
