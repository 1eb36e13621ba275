-- Several models stand beside each other behind one router, each with its share.
-- SPDX-License-Identifier: MIT
local lathe    = require "lathe"
local t        = require "support"
local workload = require "lathe.workload"

-- In virtual time: a machine four times as quick, with three requests of four.
local function sim(factor)
  return lathe.model { "sim", step_us = 4000 / factor, prefill_us = 0, prefill_context_ns = 0, decode_us = 0, decode_context_ns = 0 }
end
local quick <close> = sim(4)
local slow <close> = sim(1)
local load = workload.poisson { rate = 10, requests = 2000, seed = 3, prompt = 10, output = 20 }
local run <close> = lathe.fleet { clock = "virtual", router = { "split", by = "model", weights = "0:3,1:1" }, workload = load,
                                  replicas = { { model = quick, replicas = 2 }, { model = slow } }, seed = 3 }
local rows = run:query [[select replica, count(*) as n, avg(finish_ns - planned_ns) / 1e6 as ms from request where run_id = :run
                         group by replica order by replica]]
t.equal(#rows, 3)
t.near((rows[1].n + rows[2].n) / 2000, 0.75, 0.01, "share of the quick ones")
t.near(rows[1].ms, 20, 1, "twenty steps of one millisecond") -- some wait for a step's end
t.near(rows[3].ms, 82, 4, "twenty of four")

-- The replicas' own weights hold where the router has none of its own.
local weighed <close> = lathe.run { clock = "virtual", router = "split", workload = load, seed = 3, trace = { rows = "requests" },
                                    models = { { model = quick, weight = 9 }, { model = slow, weight = 1 } } }
t.near(weighed:query "select avg(replica) as share from request where run_id = :run"[1].share, 0.1, 0.01, "share of the slow one")

-- In real time: the same prompt, two models, two answers.
local one <close> = lathe.model { "tiny", seed = 1 }
local other <close> = lathe.model { "tiny", seed = 2 }
local prompts = {}
for i = 1, 4 do prompts[i] = { prompt = "the same", max_tokens = 6, ignore_eos = true } end
local both <close> = lathe.run { router = "round_robin", workload = prompts, models = { { model = one }, { model = other } } }
local texts = {}
for _, output in ipairs(both:outputs()) do texts[output.text] = (texts[output.text] or 0) + 1 end
local kinds = 0
for _, n in pairs(texts) do
  kinds = kinds + 1
  t.equal(n, 2)
end
t.equal(kinds, 2, "answers")

-- Side by side in a sweep, models are copied for each run: the same rows as one by one.
local function swept(jobs, file)
  local s = lathe.sweep { name = "models", seeds = 3, grid = { weight = { 1, 3 } }, jobs = jobs, database = file,
    run = function(p) return { clock = "virtual", router = "split", trace = { rows = "requests" },
      workload = workload.poisson { rate = 10, requests = 200, seed = p.seed, prompt = 10, output = 20 },
      models = { { model = quick, weight = p.weight }, { model = slow } } } end }
  return s:query "select sum(finish_ns) as ends, sum(replica) as on_slow from request"[1]
end
local parallel, alone = swept(2, "results/two.db"), swept(1, "results/one.db")
t.equal(parallel.ends, alone.ends)
t.equal(parallel.on_slow, alone.on_slow)

-- What can't be.
local function fails(description, ...)
  description.workload, description.trace = prompts, false
  t.fails(function() lathe.run(description) end, ...)
end
fails({ model = one, models = { { model = other } } }, "not both")
fails({ models = {} }, "1 to 16")
fails({ models = { { model = one, replica = 2 } } }, "models: 1", "did you mean \"replicas\"?")
fails({ models = { { model = 3 } } }, "should be a model")
fails({ models = { { model = one, replicas = 40 }, { model = other, replicas = 40 } } }, "80 replicas", "64")
fails({ models = { { model = one } }, workers = { model = 2 } }, "models", "how many")
