-- SPDX-License-Identifier: MIT
-- lathe.faults: what goes wrong with the replicas of a simulated run, drawn from a seed.
--
--   lathe.run { clock = "virtual", workers = { model = 4 }, …,
--               faults = lathe.faults { seed = 1, replicas = 4, horizon = 600,  -- seconds
--                                       mtbf = 120, mttr = 5,                   -- dies, and comes back
--                                       slow = { mtbf = 60, lasts = 20, factor = 3 },
--                                       loses = { mtbf = 300 } } }              -- its cache
--
-- Each replica is an alternating renewal process: well for an exponential time of mean mtbf, then
-- dead for one of mean mttr, so of the time it lives a share mtbf / (mtbf + mttr). Slow times come
-- likewise and independently, lost caches are a Poisson process. No two deaths of a replica overlap.
--
-- A draw is a function of (seed, kind, replica, number): another kind of fault, one more replica or
-- a longer horizon leave all other faults where they were (common random numbers).
local check  = require "lathe.check"
local core   = require "lathe.core"
local random = require "lathe.random"

local what <const> = "lathe.faults"
local DIES <const>, SLOW <const>, LOSES <const> = 1, 2, 3

-- Faults of one kind on one replica: at exponential times after the end of the one before.
local function draw(list, of, kind, replica, mtbf, lasts, more)
  local at, number, stream = 0, 0, kind << 32 | replica
  while true do
    at = at + mtbf * random.exponential(of.seed, random.FAULTS, stream, number)
    if at >= of.horizon then return end
    if #list == 1 << 20 then
      core.fail(("%s: more than %d faults; a shorter horizon or a longer mtbf makes fewer"):format(what, 1 << 20))
    end
    local fault = { at = at, replica = replica, lasts = lasts and lasts * random.exponential(of.seed, random.FAULTS, stream, number + 1) }
    for k, v in pairs(more) do fault[k] = v end
    list[#list + 1] = fault
    at, number = at + (fault.lasts or 0), number + 2
  end
end

local function process(t, name, fields)
  if t[name] == nil then return nil end
  local where = what .. ": " .. name
  check.fields(where, t[name], fields)
  return function(field, min, max, default) return check.number(where, t[name], field, min, max, default) end
end

return function(t)
  check.fields(what, t, { "seed", "replicas", "horizon", "mtbf", "mttr", "slow", "loses" })
  local of = {
    seed = check.integer(what, t, "seed", 0, math.maxinteger, 1),
    replicas = check.integer(what, t, "replicas", 1, 1 << 16, 1),
    horizon = check.number(what, t, "horizon", 0, 1e9),
  }
  local mtbf = t.mtbf ~= nil and check.number(what, t, "mtbf", 1e-6, 1e12)
  local mttr = check.number(what, t, "mttr", 0, 1e9, 10)
  local slow, loses = process(t, "slow", { "mtbf", "lasts", "factor" }), process(t, "loses", { "mtbf" })
  if not mtbf and t.mttr ~= nil then core.fail(what .. ": \"mttr\" is how long the dead stay dead: give \"mtbf\" too") end
  if not (mtbf or slow or loses) then
    core.fail(what .. ": nothing can go wrong: give \"mtbf\", slow = { mtbf = … } or loses = { mtbf = … }")
  end
  local list = {}
  for replica = 0, of.replicas - 1 do
    if mtbf then draw(list, of, DIES, replica, mtbf, mttr, { kind = "dies" }) end
    if slow then
      draw(list, of, SLOW, replica, slow("mtbf", 1e-6, 1e12), slow("lasts", 0, 1e9, 10),
        { kind = "slow", factor = slow("factor", 0.001, 1e6, 2) })
    end
    if loses then draw(list, of, LOSES, replica, loses("mtbf", 1e-6, 1e12), nil, { kind = "loses_cache" }) end
  end
  table.sort(list, function(a, b)
    if a.at ~= b.at then return a.at < b.at end
    if a.replica ~= b.replica then return a.replica < b.replica end
    return a.kind < b.kind
  end)
  return list
end
