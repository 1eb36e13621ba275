-- Drawn faults: seeded, of the promised means, independent of each other, and taken by lathe.run.
-- SPDX-License-Identifier: MIT
local lathe    = require "lathe"
local t        = require "support"
local workload = require "lathe.workload"

local function of(more)
  local d = { seed = 7, replicas = 3, horizon = 1e5, mtbf = 100, mttr = 25, slow = { mtbf = 50, lasts = 5, factor = 4 },
              loses = { mtbf = 200 } }
  for k, v in pairs(more or {}) do d[k] = v or nil end
  return lathe.faults(d)
end

local function only(list, kind, replica)
  local some = {}
  for _, f in ipairs(list) do
    if f.kind == kind and (not replica or f.replica == replica) then some[#some + 1] = f end
  end
  return some
end

-- counts and means: n faults of a renewal process with mean cycle c by time T, n ≈ T / c
local list = of()
local function count_near(kind, cycle)
  local n, expected = #only(list, kind), 3 * 1e5 / cycle
  t.near(n, expected, 4 * math.sqrt(expected), kind)
end
count_near("dies", 125)
count_near("slow", 55)
count_near("loses_cache", 200)
local dead = 0
for _, f in ipairs(only(list, "dies")) do dead = dead + f.lasts end
t.near(dead / 3e5, 0.2, 0.03, "the share of the time that a replica is dead")

-- in order, inside, and no two deaths of a replica overlap
for i = 2, #list do t.truth(list[i - 1].at <= list[i].at, "sorted") end
t.truth(list[1].at > 0 and list[#list].at < 1e5, "inside of the horizon")
for replica = 0, 2 do
  local own = only(list, "dies", replica)
  for i = 2, #own do t.truth(own[i].at > own[i - 1].at + own[i - 1].lasts, "one death at a time") end
end

-- the same seed, the same faults; another seed, others; what else is drawn moves nothing
local function text(faults) return lathe.json.encode(faults) end
t.equal(text(of()), text(list))
t.truth(text(of { seed = 8 }) ~= text(list), "another seed")
t.equal(text(only(of { slow = false, loses = false, replicas = 5 }, "dies", 1)), text(only(list, "dies", 1)))
t.equal(text(only(of { mtbf = false, mttr = false }, "slow", 2)), text(only(list, "slow", 2)))
local short = of { horizon = 1e4 }
for i, f in ipairs(short) do t.equal(text(f), text(list[i])) end

-- what makes no sense is one sentence
t.fails(function() lathe.faults { horizon = 10 } end, "nothing can go wrong")
t.fails(function() lathe.faults { horizon = 10, mttr = 2 } end, "give \"mtbf\" too")
t.fails(function() lathe.faults { mtbf = 10 } end, "\"horizon\" should be a number")
t.fails(function() lathe.faults { horizon = 10, slow = { mtfb = 1 } } end, "did you mean \"mtbf\"?")
t.fails(function() lathe.faults { horizon = 1e9, mtbf = 1e-3 } end, "more than 1048576 faults")

-- a run takes them, and what dies costs
local function run(faults)
  local r <close> = lathe.run { model = lathe.model { "sim", step_us = 10000 }, clock = "virtual", workers = { model = 2 }, trace = false,
    router = "p2c", faults = faults, seed = 3,
    workload = workload.poisson { requests = 2000, rate = 20, seed = 5, prompt = workload.fixed(20), output = workload.fixed(10) } }
  return r.summary
end
local well, ill = run(), run(lathe.faults { seed = 2, replicas = 2, horizon = 100, mtbf = 8, mttr = 2 })
t.equal(well.requests, ill.requests)
t.equal(well.preemptions, 0)
t.truth(ill.preemptions > 5, "who was computed is computed again")
t.truth(ill.response.mean > 1.5 * well.response.mean, "and takes longer")
