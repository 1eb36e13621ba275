-- Workloads have the statistics that their formulas say, and streams that don't shift each other.
-- SPDX-License-Identifier: MIT
local stats    = require "lathe.stats"
local t        = require "support"
local workload = require "lathe.workload"

local N <const> = 20000

local function gaps(w)
  local list, last = {}, 0
  for i, request in ipairs(w.requests) do
    list[i], last = request.at - last, request.at
    t.truth(list[i] >= 0, "arrivals ascend")
  end
  return list
end

-- Poisson: gaps have mean 1/rate and CV 1; P(gap > 1/rate) = 1/e. Standard errors at N: 0.7%.
local poisson = gaps(workload.poisson { rate = 4, requests = N, prompt = "x", seed = 5 })
t.near(stats.mean(poisson) * 4, 1, 0.03, "Poisson mean")
t.near(stats.sd(poisson) / stats.mean(poisson), 1, 0.03, "Poisson CV")
t.near(stats.median(poisson) * 4, math.log(2), 0.03, "Poisson median")

-- Gamma renewal: mean 1/rate, CV as asked; the exponential is its special case.
for _, cv in ipairs { 0.5, 1, 3 } do
  local g = gaps(workload.gamma { rate = 4, cv = cv, requests = N, prompt = "x", seed = 6 })
  t.near(stats.mean(g) * 4, 1, 0.03 * math.max(1, cv), "gamma mean, cv " .. cv)
  t.near(stats.sd(g) / stats.mean(g), cv, 0.06 * cv, "gamma CV " .. cv)
end
t.near(stats.median(gaps(workload.gamma { rate = 1, cv = 1, requests = N, prompt = "x" })), math.log(2), 0.03, "gamma(1) median")

-- Constant, burst, closed.
local constant = workload.constant { rate = 2, requests = 5, prompt = "x" }.requests
t.equal(constant[1].at, 0.0)
t.equal(constant[5].at, 2.0)
local burst = workload.burst { size = 3, every = 2, requests = 7, prompt = "x" }.requests
t.equal(burst[3].at, 0)
t.equal(burst[4].at, 2)
t.equal(burst[7].at, 4)
local closed = workload.closed { concurrency = 3, think = 0.5, requests = 9, prompt = "x" }
t.equal(closed.concurrency, 3)
t.equal(closed.think, 0.5)
t.equal(closed.requests[1].at, nil)

-- Lengths: a lognormal's median and its 84th percentile (one sigma up); uniform's ends and mean.
local function drawn(d)
  local list = {}
  for i = 1, N do list[i] = d:draw(11, 1, i) end
  return list
end
local lognormal = drawn(workload.lognormal { median = 1200, sigma = 0.7 })
t.near(stats.median(lognormal) / 1200, 1, 0.03, "lognormal median")
t.near(math.log(stats.percentile(lognormal, 84.134) / stats.median(lognormal)), 0.7, 0.03, "lognormal sigma")
local uniform = drawn(workload.uniform { from = 3, to = 12 })
t.equal(stats.min(uniform), 3)
t.equal(stats.max(uniform), 12)
t.near(stats.mean(uniform), 7.5, 0.1, "uniform mean")
t.near(stats.mean(drawn(workload.exponential { mean = 500 })) / 500, 1, 0.03, "exponential mean")
local empirical = drawn(workload.empirical { 5, 5, 50 })
local fives = 0
for _, v in ipairs(empirical) do
  t.truth(v == 5 or v == 50, "empirical values")
  fives = fives + (v == 5 and 1 or 0)
end
t.near(fives / N, 2 / 3, 0.02, "empirical share")
t.equal(workload.fixed(7):draw(1, 1, 1), 7)
t.truth(stats.max(drawn(workload.lognormal { median = 100, sigma = 2, max = 300, min = 20 })) <= 300, "cut above")
t.truth(stats.min(drawn(workload.lognormal { median = 100, sigma = 2, max = 300, min = 20 })) >= 20, "cut below")

-- The same seed draws the same; another doesn't; streams are apart.
local function described(seed, seeds)
  local text = {}
  for i, r in ipairs(workload.poisson { rate = 1, requests = 50, seed = seed, seeds = seeds, prompt = workload.uniform { from = 1, to = 999 },
                                        output = workload.uniform { from = 1, to = 999 } }.requests) do
    text[i] = ("%.9f %d %d"):format(r.at, r.prompt_tokens, r.output_tokens)
  end
  return text
end
t.equal(table.concat(described(3), "\n"), table.concat(described(3), "\n"))
t.truth(described(3)[1] ~= described(4)[1], "another seed draws otherwise")
local a, b = described(3), described(3, { outputs = 4 })
t.equal(a[9]:match "^(%S+ %d+)", b[9]:match "^(%S+ %d+)", "arrivals and prompts stay")
t.truth(a[9] ~= b[9], "outputs change")

-- Replay: columns by name, cut and scaled; nonsense is named with its line.
local replay = workload.replay { file = "../../../experiments/data/sample_trace.csv", from = 11, requests = 5, speed = 2, lengths = 0.5, max_output = 20 }
t.equal(#replay.requests, 5)
t.equal(replay.requests[1].at, 0.0)
t.truth(replay.requests[2].at > 0)
t.truth(replay.requests[1].prompt_tokens >= 1)
for _, r in ipairs(replay.requests) do t.truth(r.output_tokens <= 20, "cut") end
local whole = workload.replay { file = "../../../experiments/data/sample_trace.csv" }
t.equal(#whole.requests, 200)
local half = workload.replay { file = "../../../experiments/data/sample_trace.csv", speed = 2, lengths = 0.5 }
t.near(half.requests[200].at * 2, whole.requests[200].at, 1e-9, "speed")
t.near(half.requests[200].prompt_tokens * 2, whole.requests[200].prompt_tokens, 1, "lengths")

local name = os.tmpname()
local function written(text)
  local file <close> = assert(io.open(name, "w"))
  file:write(text)
end
written "arrived_at,num_prefill_tokens,num_decode_tokens\r\n0,3,4\r\n1,many,4\r\n"
t.fails(function() workload.replay { file = name } end, ":3:", "num_prefill_tokens", "many")
written "time,tokens\n0,1\n"
t.fails(function() workload.replay { file = name } end, "no column arrived_at")
written "arrived_at,num_prefill_tokens,num_decode_tokens\n"
t.fails(function() workload.replay { file = name } end, "no rows")
t.fails(function() workload.replay { file = "no_such.csv" } end, "no_such.csv")
written "# a comment\none\nmore of one\n\n\ntwo\n"
local prompts = workload.prompts(name)
t.equal(#prompts, 2)
t.equal(prompts[1], "one\nmore of one")
os.remove(name)
t.equal(#workload.prompts "../../../experiments/data/prompts.txt", 12)

-- Wrong fields.
t.fails(function() workload.poisson { rat = 1, prompt = "x" } end, "did you mean \"rate\"?")
t.fails(function() workload.poisson { rate = 0, requests = 1, prompt = "x" } end, "\"rate\" is 0")
t.fails(function() workload.poisson { rate = 1, requests = 1 } end, "\"prompt\"")
t.fails(function() workload.poisson { rate = 1, requests = 1.5, prompt = "x" } end, "whole number")
t.fails(function() workload.poisson { rate = 1, requests = 1, prompt = "x", output = "long" } end, "\"output\"")
t.fails(function() workload.lognormal { median = -1, sigma = 1 } end, "\"median\"")
t.fails(function() workload.gamma { rate = 1, cv = 0 / 0, requests = 1, prompt = "x" } end, "\"cv\"")
