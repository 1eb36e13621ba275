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
t.equal(#whole.requests, 2000)
local half = workload.replay { file = "../../../experiments/data/sample_trace.csv", speed = 2, lengths = 0.5 }
t.near(half.requests[2000].at * 2, whole.requests[2000].at, 1e-9, "speed")
t.near(half.requests[2000].prompt_tokens * 2, whole.requests[2000].prompt_tokens, 1, "lengths")
local window = workload.replay { file = "../../../experiments/data/sample_trace.csv", window = 60 }.requests
t.truth(#window > 10 and #window < 2000 and window[#window].at < 60 and whole.requests[#window + 1].at >= 60, "window")
local looped = workload.replay { file = "../../../experiments/data/sample_trace.csv", requests = 4001 }.requests
local round = whole.requests[2000].at * 2000 / 1999 -- its span and one mean gap
t.near(looped[2001].at, round, 1e-6, "the second round")
t.near(looped[4001].at, 2 * round, 1e-6, "the third round")
t.equal(looped[4000].prompt_tokens, whole.requests[2000].prompt_tokens)
t.equal(workload.replay { file = "../../../experiments/data/sample_trace.csv", output = 7 }.requests[3].output_tokens, 7)

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
written "arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,3\n\n0.5,2,3\n"
t.fails(function() workload.replay { file = name } end, ":4:", "before the row above")
written "arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,3\n2,3\n"
t.fails(function() workload.replay { file = name } end, ":3:", "num_decode_tokens should be a number, not \"\"")
written "arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,3\n"
t.fails(function() workload.replay { file = name, from = 2 } end, "has 1 rows, and row 2 was to be the first")
t.fails(function() workload.replay { file = "no_such.csv" } end, "no_such.csv")
written "# a comment\none\nmore of one\n\n\ntwo\n"
local prompts = workload.prompts(name)
t.equal(#prompts, 2)
t.equal(prompts[1], "one\nmore of one")
os.remove(name)
t.equal(#workload.prompts "../../../experiments/data/prompts.txt", 12)

-- Markov-modulated: over a minute as dispersed as the closed form says, gaps hardly more than Poisson's.
local calm_and_busy = { rates = { 2, 5 }, stays = { 40, 20 } }
local mmpp = workload.mmpp { rates = calm_and_busy.rates, stays = calm_and_busy.stays, requests = 10 * N, prompt = 1, output = 1 }.requests
local counts = {}
for _, r in ipairs(mmpp) do
  local minute = r.at // 60 + 1
  counts[minute] = (counts[minute] or 0) + 1
end
counts[#counts] = nil
t.near(stats.mean(counts) / 60, 3, 0.15, "MMPP mean rate")
local expected = workload.dispersion { rates = calm_and_busy.rates, stays = calm_and_busy.stays, window = 60 }
t.near(expected, 14.9, 0.1, "index of dispersion, closed form")
t.near(stats.sd(counts) ^ 2 / stats.mean(counts) / expected, 1, 0.2, "index of dispersion, counted")
t.near(workload.dispersion { rates = { 4, 4 }, stays = { 1, 9 } }, 1, 1e-12, "equal rates are Poisson")
t.truth(workload.dispersion { rates = { 2, 5 }, stays = { 40, 20 } } > expected, "the limit is more than a minute's")

-- Classes: shares as said, each with its own lengths, targets and tenant; the seed of one stream moves no other.
local mixed = { rate = 5, requests = N, seed = 3, prompt = workload.fixed(9), output = workload.uniform { from = 1, to = 99 },
                each = { priority = 2 }, classes = {
                  { name = "chat", tenant = "a", share = 3, slo = { ttft = 0.5 }, predicted = true },
                  { name = "batch", share = 1, prompt = 400, output = 7, priority = -1, weight = 0.5, deadline_s = 60, predicted = "mean" },
                  { name = "code", share = 1, predicted = { noise = 0.5 } } } }
local function classes(seeds)
  mixed.seeds = seeds
  return workload.poisson(mixed)
end
local by = { chat = {}, batch = {}, code = {} }
local wrong = {}
local w = classes()
t.equal(rawget(w, "requests"), nil, "nothing is made before it is asked for")
t.equal(w.draw:count(), N)
for _, r in ipairs(w.requests) do
  table.insert(by[r.class], r)
  if r.class == "code" then wrong[#wrong + 1] = math.log(r.predicted / r.output_tokens) end
  if r.class == "chat" then t.equal(r.predicted, r.output_tokens) end
end
t.equal(w.requests, w.requests)
t.near(#by.chat / N, 0.6, 0.015, "share of chat")
t.near(#by.batch / N, 0.2, 0.012, "share of batch")
local one = by.batch[1]
t.equal(("%d %d %d %d %s %s %s"):format(one.prompt_tokens, one.output_tokens, one.predicted, one.priority, one.weight, one.deadline_s, one.tenant),
        "400 7 7 -1 0.5 60.0 nil")
t.equal(by.chat[1].slo.ttft, 0.5)
t.equal(by.chat[1].tenant, "a")
t.equal(by.chat[1].priority, 2)
t.near(stats.median(wrong), 0, 0.05, "predictions' bias")
t.near(stats.sd(wrong), 0.5, 0.05, "predictions' noise")
-- a bias is the mean of the error's logarithm, with noise or alone
for _, predicted in ipairs { { bias = -0.7 }, { bias = 1, noise = 0.25 } } do
  local off = {}
  for i, r in ipairs(workload.poisson { rate = 1, requests = 500, prompt = 1, output = 3000, predicted = predicted }.requests) do
    off[i] = math.log(r.predicted / r.output_tokens)
  end
  t.near(stats.mean(off), predicted.bias, 0.04, "predictions' bias")
  t.near(stats.sd(off), predicted.noise or 0, 0.03, "noise beside a bias")
end
local function predicting(predicted) return { rate = 1, requests = 1, prompt = 1, output = 1, predicted = predicted } end
t.fails(function() workload.poisson(predicting {}) end, 'neither "noise" nor "bias"')
t.fails(function() workload.poisson(predicting { bias = 21 }) end, '"bias" is 21')
local other = classes { classes = 9 }
for i = 1, N do t.truth(other.requests[i].at == w.requests[i].at, "arrivals stay when classes change") end
t.equal(workload.closed { concurrency = 2, requests = 3, prompt = 1, output = 1, classes = { { name = "x" } } }.requests[2].class, "x")
local texts = workload.constant { rate = 1, requests = 6, classes = { { name = "x", prompt = { "1", "2" } }, { name = "y", prompt = 5, output = 2 } } }
t.equal(texts.draw, nil, "texts are tables from the start")
local number = 0
for _, r in ipairs(texts.requests) do
  if r.class == "x" then
    number = number + 1
    t.equal(r.prompt, tostring((number - 1) % 2 + 1))
    t.equal(r.output_tokens, nil)
  end
end
t.equal(workload.poisson { rate = 1, requests = 5, prompt = 3, output = 4, each = { sampling = { seed = 1 } } }.draw, nil)

-- Sessions: each prompt begins with the one before and room for its answer; all share the system's tokens.
local conversation = workload.sessions { rate = 1, sessions = 40, turns = workload.uniform { from = 1, to = 5 }, think = 3,
                                         system = { tokens = 20, groups = 2 }, prompt = workload.uniform { from = 1, to = 9 }, output = 6 }
local last, system, at = {}, {}, 0
for _, r in ipairs(conversation.requests) do
  local before = last[r.session]
  t.truth(r.at >= at, "sessions' arrivals ascend")
  at = r.at
  t.equal(r.turn, before and before.turn + 1 or 1)
  if before then
    t.near(r.at - before.at, 3, 1e-9, "think time")
    t.truth(#r.tokens > #before.tokens + 6, "it grows")
    for i, id in ipairs(before.tokens) do t.truth(r.tokens[i] == id, "it begins with the turn before") end
  end
  last[r.session] = r
  local group, shared = r.session % 2, table.concat(r.tokens, " ", 1, 20)
  system[group] = system[group] or shared
  t.equal(shared, system[group], "the system's tokens")
end
t.truth(system[0] ~= system[1], "groups differ")
for _, r in ipairs(conversation.requests) do
  for _, id in ipairs(r.tokens) do t.truth(id >= 0 and id < 256, "ids") end
end
local short = workload.sessions { rate = 1, sessions = 9, turns = 9, prompt = 10, output = 10, max_prompt = 50 }
for _, r in ipairs(short.requests) do t.truth(r.turn <= 3 and #r.tokens <= 50, "max_prompt ends a session") end

-- Wrong fields.
t.fails(function() workload.mmpp { rates = { 1, 2 }, stays = { 1 }, requests = 1, prompt = 1 } end, "as many")
t.fails(function() workload.mmpp { rates = { 0, 0 }, stays = { 1, 1 }, requests = 1, prompt = 1 } end, "raise the rates")
t.fails(function() workload.mmpp { rates = { 1, -2 }, stays = { 1, 1 }, requests = 1, prompt = 1 } end, "state 2's rate is -2")
t.fails(function() workload.poisson { rate = 1, requests = 1, prompt = 1, classes = { { nam = "x" } } } end, "class 1", "did you mean \"name\"?")
t.fails(function() workload.poisson { rate = 1, requests = 1, prompt = 1, classes = {} } end, "\"classes\"", "empty")
t.fails(function() workload.poisson { rate = 1, requests = 1, prompt = 1, classes = { { share = 0 } } } end, "no class has a share")
t.fails(function() workload.poisson { rate = 1, requests = 1, prompt = 1, predicted = "maybe" } end, "\"predicted\" should be")
t.fails(function() workload.poisson { rate = 1, requests = 1, prompt = 1, seeds = { class = 1 } } end, "did you mean \"classes\"?")
t.fails(function() workload.sessions { rate = 1, sessions = 2, turns = 2, prompt = 1 } end, "\"output\"")
t.fails(function() workload.sessions { rate = 1, sessions = 2, turns = 2, prompt = 1, output = 1, system = 50, max_prompt = 9 } end, "\"max_prompt\"")
t.fails(function() workload.poisson { rat = 1, prompt = "x" } end, "did you mean \"rate\"?")
t.fails(function() workload.poisson { rate = 0, requests = 1, prompt = "x" } end, "\"rate\" is 0")
t.fails(function() workload.poisson { rate = 1, requests = 1 } end, "\"prompt\"")
t.fails(function() workload.poisson { rate = 1, requests = 1.5, prompt = "x" } end, "whole number")
t.fails(function() workload.poisson { rate = 1, requests = 1, prompt = "x", output = "long" } end, "\"output\"")
t.fails(function() workload.lognormal { median = -1, sigma = 1 } end, "\"median\"")
t.fails(function() workload.gamma { rate = 1, cv = 0 / 0, requests = 1, prompt = "x" } end, "\"cv\"")
