-- A mesh's simulation clock: looked at, changed, or given a turn to tick. The rules are
-- those of books/mesh/clockwork.rs, and a lease for the node that ticks.
--
-- Ticks fall on a grid that begins when the clock is set going. One that everybody was too
-- late for is left out, and its number is the next one's. Without a lease in the mesh the
-- clock stands; books.lua sees to that when the last one goes.
--
-- ARGV  4 "look", "set", "pause", "resume" or "tick"
--       set   5 speed
--       tick  5 node  6 its lease in ms, and what the node knows of the clock:
--             7 started  8 tick  9 version  10 speed
-- Returns { found, speed, paused, tick, started, version, ticked, wait_ms }, speed as text.

local what = ARGV[4]
local FIELDS =
  { 'speed', 'paused', 'tick', 'started', 'version', 'grid', 'due', 'ticker', 'until' }
local TICK_MS, SPEED_MAX, WHOLE_MAX = 60000, 100, 9007199254740992

-- What is no clock counts as none.
local function read()
  local values = redis.call('HMGET', CLOCK, unpack(FIELDS))
  local clock = { ticker = values[8] or '' }
  for index, field in ipairs(FIELDS) do
    if field ~= 'ticker' then
      local number = tonumber(values[index] or '')
      if not number or number < 0 or number > WHOLE_MAX then return nil end
      clock[field] = number
    end
  end
  clock.speed = math.max(1, math.min(SPEED_MAX, clock.speed))
  return clock
end

local function start_grid(clock)
  clock.grid = NOW
  clock.due = NOW + math.ceil(TICK_MS / clock.speed)
end

local function next_due(clock)
  local interval = TICK_MS / clock.speed
  local step = math.floor((NOW - clock.grid) / interval) + 1
  local due = clock.grid + math.ceil(step * interval)
  -- What was rounded may have led to this very instant.
  if due <= NOW then due = clock.grid + math.ceil((step + 1) * interval) end
  return due
end

local function begin(speed, tick, started, version)
  local clock = { speed = speed, paused = 0, tick = tick, started = started,
    version = version, ticker = '', ['until'] = 0 }
  start_grid(clock)
  return clock
end

local function touch(clock)
  clock.version = math.max(NOW, clock.version + 1)
end

local function whole(number)
  return string.format('%.0f', number)
end

local function write(clock)
  redis.call('HSET', CLOCK, 'speed', string.format('%.17g', clock.speed),
    'paused', clock.paused, 'tick', whole(clock.tick), 'started', whole(clock.started),
    'version', whole(clock.version), 'grid', whole(clock.grid), 'due', whole(clock.due),
    'ticker', clock.ticker, 'until', whole(clock['until']))
  redis.call('PEXPIRE', CLOCK, BOOKS_MS)
end

local function reply(clock, ticked, wait)
  if not clock then return { 0, '0', 1, 0, 0, 0, 0, 0 } end
  local speed = string.format('%.17g', clock.speed)
  return { 1, speed, clock.paused, clock.tick, clock.started, clock.version, ticked, wait }
end

local clock = read()
if what == 'look' then return reply(clock, 0, 0) end

if what == 'tick' then
  local node, lease_ms = ARGV[5], tonumber(ARGV[6])
  local started, tick, version = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
  if not clock or clock.started < started then
    clock = begin(tonumber(ARGV[10]), tick, started, version)
  elseif clock.started == started and (clock.tick < tick or clock.version < version) then
    -- The server has lost its last moments: no number is given twice.
    clock.tick, clock.version = math.max(clock.tick, tick), math.max(clock.version, version)
    touch(clock)
  end
  if clock.paused == 0 and count() == 0 then
    clock.paused = 1
    touch(clock)
  end
  if clock.paused == 1 then
    write(clock)
    return reply(clock, 0, 0)
  end
  local held_ms = clock['until'] - NOW
  if clock.ticker ~= node and held_ms > 0 and held_ms <= lease_ms then
    return reply(clock, 0, held_ms)
  end
  clock.ticker, clock['until'] = node, NOW + lease_ms
  -- Where the server's clock went back, the next tick is no further than an interval away.
  if clock.due > NOW + TICK_MS / clock.speed + 1 then start_grid(clock) end
  local ticked = 0
  if NOW >= clock.due then
    ticked = 1
    clock.tick = clock.tick + 1
    clock.due = next_due(clock)
    touch(clock)
  end
  write(clock)
  return reply(clock, ticked, math.min(clock.due - NOW, math.floor(lease_ms / 3)))
end

if what == 'set' then
  local speed = tonumber(ARGV[5])
  if clock then
    clock.speed = speed
    start_grid(clock)
  else
    clock = begin(speed, 0, NOW, 0)
  end
end
if not clock then return reply(nil, 0, 0) end
if what == 'pause' then clock.paused = 1 end
if what == 'resume' and clock.paused == 1 then
  clock.paused = 0
  start_grid(clock)
end
if count() == 0 then clock.paused = 1 end
touch(clock)
write(clock)
return reply(clock, 0, 0)
