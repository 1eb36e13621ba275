-- Routers do to simulated replicas what their formulas say: Erlang C in front, two choices, a split.
-- SPDX-License-Identifier: MIT
local lathe    = require "lathe"
local t        = require "support"
local workload = require "lathe.workload"

-- A replica serves one request at a time, 50 ms an output token and nothing else: with lengths that are
-- exponential, of 20 tokens on average, service takes 1 s on average and is (nearly) exponential.
local model = lathe.model { "sim", step_us = 50000, prefill_us = 0, prefill_context_ns = 0, decode_us = 0, decode_context_ns = 0 }

local function fleet(n, router, w, rest)
  local description = { model = model, router = router, replicas = n, workload = w, clock = "virtual", batching = "continuous",
                        engine = { batch_requests = 1, context_tokens = 8192 }, trace = false, seed = 3 }
  for k, v in pairs(rest or {}) do description[k] = v end
  return lathe.fleet(description).summary
end

local function poisson(load, n, requests)
  return workload.poisson { rate = load * n, requests = requests, seed = 5, prompt = 1, output = workload.exponential { mean = 20 } }
end

-- M/M/10 at 0.9: mean wait 0.6687, as Erlang's C has it; and no request waits at a busy replica while another idles.
local central = fleet(10, "central", poisson(0.9, 10, 200000))
t.near(central.queue.mean / 0.6687, 1, 0.12, "central, mean wait")
t.near(central.busy, 0.9, 0.02, "central, load")

-- The same arrivals, other routers: central < the least loaded < two choices < in turn < drawn.
local load = poisson(0.8, 100, 60000)
local of = {}
for _, router in ipairs { "central", "least_loaded", "p2c", "round_robin", "random" } do of[router] = fleet(100, router, load).response.mean end
t.truth(of.central < of.least_loaded and of.least_loaded < of.p2c and of.p2c < of.round_robin and of.round_robin < of.random,
        ("central %.3f, least_loaded %.3f, p2c %.3f, round_robin %.3f, random %.3f"):format(of.central, of.least_loaded, of.p2c,
          of.round_robin, of.random))
t.near(of.p2c / 1.947, 1, 0.05, "p2c at 0.8: the supermarket model") -- Σ 0.8^(2^i − 2)
t.near(of.random / 5, 1, 0.2, "random at 0.8: 1 / (1 − 0.8)") -- less, since it began empty
t.near(fleet(100, { "p2c", d = 3 }, load).response.mean / 1.581, 1, 0.05, "three choices") -- Σ 0.8^((3^i − 3) / 2)

-- A session's turns begin alike, so they stay together; a tenant stays on its side, and gets it by weight.
local function replicas_of(column, router, w)
  local run = lathe.fleet { model = model, router = router, replicas = 4, workload = w, clock = "virtual", seed = 3 }
  return run:query(("select count(distinct replica) as replicas, min(replica) as first, count(*) as n from request where run_id = :run group by %s")
    :format(column))
end
local chats = workload.sessions { rate = 2, sessions = 30, turns = 4, think = 5, system = 20, prompt = workload.uniform { from = 8, to = 20 },
                                  output = 5 }
for _, row in ipairs(replicas_of("session", { "prefix", prefix_tokens = 28, bound = 100 }, chats)) do t.equal(row.replicas, 1, "replicas of a session") end
local spread = 0
for _, row in ipairs(replicas_of("session", "random", chats)) do spread = spread + row.replicas end
t.truth(spread > 60, "drawn, a session is all over the place")
local tenants = {}
for i = 1, 40 do tenants[i] = { tenant = "t" .. i } end
local rows = replicas_of("tenant", { "split", weights = "0:3,1:1", sticky = "tenant" },
  workload.poisson { rate = 20, requests = 2000, prompt = 4, output = 2, classes = tenants })
local on_first = 0
t.equal(#rows, 40)
for _, row in ipairs(rows) do
  t.equal(row.replicas, 1, "replicas of a tenant")
  on_first = on_first + (row.first == 0 and 1 or 0)
end
t.near(on_first / 40, 0.75, 0.2, "tenants on the first side")

-- fleet says what is wrong at the script's line.
t.fails(function() lathe.fleet { model = model, workload = load } end, "\"replicas\"")
t.fails(function() lathe.fleet { model = model, workload = load, replicas = 0 } end, "\"replicas\" is 0")
t.fails(function() lathe.fleet { model = model, workload = load, replicas = 2, workers = { model = 3 } } end, "workers")
t.fails(function() lathe.fleet(7) end, "lathe.fleet: takes a table")
t.fails(function() lathe.fleet { model = model, workload = load, replicas = 2, router = { "split", weights = "0" }, clock = "virtual" } end,
        "weights should be like \"0:9,1:1\"")
t.fails(function() lathe.run { model = model, clock = "virtual", workload = { { prompt = "x", weight = 0 } } } end, "\"weight\" is 0")
