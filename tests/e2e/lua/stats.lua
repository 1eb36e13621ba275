-- Statistics against values that numpy and R give, and intervals that hold what they should.
-- SPDX-License-Identifier: MIT
local random = require "lathe.random"
local stats  = require "lathe.stats"
local t      = require "support"

local v = { 2, 7, 1, 8, 2, 8, 1, 8, 2, 8 }
t.near(stats.mean(v), 4.7, 1e-12)
t.near(stats.sd(v), 3.3015148038438356, 1e-12) -- statistics.stdev(v) of Python
t.near(stats.median(v), 4.5, 1e-12)
t.near(stats.percentile(v, 25), 2.0, 1e-12)        -- R: quantile(v, .25), type 7
t.near(stats.percentile(v, 90), 8.0, 1e-12)
t.near(stats.percentile({ 10, 20, 30, 40 }, 33), 19.9, 1e-12)
t.equal(stats.percentile({ 5 }, 99), 5)
t.equal(stats.max(v), 8)
t.equal(stats.min(v), 1)

t.fails(function() stats.mean {} end, "at least 1")
t.fails(function() stats.sd { 1 } end, "at least 2")
t.fails(function() stats.percentile({ 1 }, 101) end, "0 to 100")
t.fails(function() stats.mean { 1, "two" } end, "element 2")
t.fails(function() stats.mean { 1, 0 / 0 } end, "element 2")
t.fails(function() stats.paired_difference({ 1 }, { 1, 2 }) end, "1 values against 2")
t.fails(function() stats.bootstrap({ 1 }, { lvel = 1 }) end, "did you mean \"level\"?")

-- seeded: the same interval twice; value inside
local one, two = stats.bootstrap(v, { seed = 3 }), stats.bootstrap(v, { seed = 3 })
t.equal(one.low, two.low)
t.equal(one.high, two.high)
t.truth(one.low < one.value and one.value < one.high)
t.equal(one.value, stats.mean(v))
local level = stats.bootstrap(v, { level = 0.5 })
t.truth(level.high - level.low < one.high - one.low, "a lower level is narrower")

-- a 90% interval of the mean of 30 normals covers the true mean about 90 times of 100
-- (the percentile bootstrap covers a little less; 200 trials have a standard error of 2%)
local covered = 0
for trial = 1, 200 do
  local sample = {}
  for i = 1, 30 do sample[i] = 10 + 3 * random.normal(trial, random.USER, 1, i) end
  local interval = stats.bootstrap(sample, { level = 0.9, resamples = 200, seed = trial })
  if interval.low <= 10 and 10 <= interval.high then covered = covered + 1 end
end
t.truth(covered >= 164 and covered <= 194, ("coverage %d of 200"):format(covered))

local d = stats.paired_difference({ 11, 21, 31 }, { 10, 20, 30 })
t.equal(d.value, 1)
t.equal(d.low, 1)
t.equal(d.high, 1)

-- Student's t and the normal against published tables (Abramowitz and Stegun 26.10; NIST handbook 1.3.6.7)
local distributions = require "lathe.stats_distributions"
for _, row in ipairs { { 1, 12.706, 63.657 }, { 2, 4.303, 9.925 }, { 4, 2.776, 4.604 }, { 9, 2.262, 3.250 }, { 29, 2.045, 2.756 },
                       { 120, 1.980, 2.617 } } do
  t.near(stats.student_quantile(0.975, row[1]), row[2], 0.0005, "t 97.5%, df " .. row[1])
  t.near(stats.student_quantile(0.995, row[1]), row[3], 0.0005, "t 99.5%, df " .. row[1])
  t.near(distributions.student_cdf(stats.student_quantile(0.9, row[1]), row[1]), 0.9, 1e-12)
end
t.near(stats.student_quantile(0.025, 9), -2.2621571627409915, 1e-9)
t.near(stats.normal_quantile(0.975), 1.959963984540054, 1e-12)
t.near(stats.normal_quantile(1e-10), -6.361340902404056, 1e-9) -- statistics.NormalDist of Python
t.near(stats.normal_quantile(0.5), 0, 1e-15)
t.near(stats.student_quantile(0.975, 1e7), stats.normal_quantile(0.975), 1e-6, "t becomes the normal")
t.near(distributions.binomial_cdf(3, 10, 0.5), 176 / 1024, 1e-12)
t.near(distributions.binomial_cdf(367, 368, 0.99), 1 - 0.99 ^ 368, 1e-12)

-- intervals: R, t.test(c(…)); p of "the mean is 0"
local ci = stats.mean_ci(v)
t.near(ci.half, 2.2621571627409915 * 3.3015148038438356 / math.sqrt(10), 1e-9)
t.near(ci.p, 2 * distributions.student_cdf(-4.7 / (3.3015148038438356 / math.sqrt(10)), 9), 1e-12)
t.equal(stats.mean_ci({ 0, 0, 0 }).p, 1)
t.equal(stats.mean_ci({ 2, 2, 2 }).half, 0)
ci = stats.paired_ci({ 11, 22, 30 }, { 10, 20, 30 })
t.near(ci.value, 1, 1e-12)
t.near(ci.half, 4.302652729911275 / math.sqrt(3), 1e-9)
t.fails(function() stats.paired_ci({ 1, 2 }, { 1, 2, 3 }) end, "2 values against 3")
t.fails(function() stats.mean_ci({ 1, 2 }, { lvel = 0.9 }) end, "level")
t.near(stats.bonferroni(0.95, 5), 0.99, 1e-12)
local holm = stats.holm { 0.01, 0.04, 0.03 } -- R: p.adjust(c(.01, .04, .03), "holm")
t.near(holm[1], 0.03, 1e-12)
t.near(holm[2], 0.06, 1e-12)
t.near(holm[3], 0.06, 1e-12)

-- R: binom.test(8, 10)$conf.int, binom.test(0, 20), binom.test(950, 1000)
local share = stats.share_ci(8, 10)
t.near(share.low, 0.4439045, 1e-6)
t.near(share.high, 0.9747893, 1e-6)
t.near(stats.share_ci(0, 20).high, 0.1684335, 1e-6)
t.near(stats.share_ci(950, 1000).low, 0.9345996, 1e-4)
t.fails(function() stats.share_ci(11, 10) end, "\"successes\"")

-- a ratio of means is that of the sums; pairs in proportion leave no doubt
local ratio = stats.ratio_ci({ 2, 4, 6.5 }, { 1, 2, 3 })
t.near(ratio.value, 12.5 / 6, 1e-12)
t.truth(ratio.half > 0 and ratio.low < ratio.value)
t.near(stats.ratio_ci({ 2, 4, 6 }, { 1, 2, 3 }).half, 0, 1e-9)
t.fails(function() stats.ratio_ci({ 1, 2, 3 }, { 1, 2, 3, 4 }) end, "3 values against 4")

-- a control of known mean narrows 1,000 intervals, which still cover the truth about 95 times of 100
local narrower, controlled_covers = 0, 0
for trial = 1, 1000 do
  local values, controls = {}, {}
  for i = 1, 20 do
    controls[i] = random.normal(trial, random.USER, 5, i)
    values[i] = 3 + 2 * controls[i] + random.normal(trial, random.USER, 6, i)
  end
  local i = stats.controlled_ci(values, controls, 0)
  narrower = narrower + (i.half < stats.mean_ci(values).half and 1 or 0)
  controlled_covers = controlled_covers + (i.low <= 3 and 3 <= i.high and 1 or 0)
end
t.truth(narrower >= 990, ("narrower %d times of 1000"):format(narrower))
t.truth(controlled_covers >= 930 and controlled_covers <= 968, ("it covers %d of 1000"):format(controlled_covers))

-- an interval of a percentile needs enough values: a p99 has none below 368
local ladder = {}
for i = 1, 368 do ladder[i] = i end
local p99 = stats.quantile_ci(ladder, 99)
t.equal(p99.high, 368)
t.truth(p99.low < p99.value and p99.value < p99.high)
ladder[368] = nil
t.equal(stats.quantile_ci(ladder, 99), nil)
local middle = stats.quantile_ci({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, 50) -- the sign test's: ranks 2 and 9
t.equal(middle.low, 2)
t.equal(middle.high, 9)

-- series that follow themselves: x = 0.7 · x before + noise, mean 5
local function autoregressive(seed, n, phi)
  local x, values = 5 + random.normal(seed, random.USER, 2, 0) / math.sqrt(1 - phi * phi), {}
  for i = 1, n do
    x = 5 + phi * (x - 5) + random.normal(seed, random.USER, 2, i)
    values[i] = x
  end
  return values
end

-- 1,000 of them: the batches' interval covers the mean about 95 times of 100 (a little less: batches still know of
-- each other; standard error 0.7%), the one that takes values for independent fails half of the time
local by_batches, by_faith, by_blocks = 0, 0, 0
local function covers(i) return i.low <= 5 and 5 <= i.high and 1 or 0 end
for seed = 1, 1000 do
  local values = autoregressive(seed, 400, 0.7)
  by_batches = by_batches + covers(stats.batch_means(values))
  by_faith = by_faith + covers(stats.mean_ci(values))
  if seed <= 150 then by_blocks = by_blocks + covers(stats.block_bootstrap(values, { resamples = 100 })) end
end
t.truth(by_batches >= 920 and by_batches <= 970, ("batch means cover %d of 1000"):format(by_batches))
t.truth(by_faith < 700, ("naive intervals cover %d of 1000"):format(by_faith))
t.truth(by_blocks >= 123 and by_blocks <= 150, ("block bootstrap covers %d of 150"):format(by_blocks))
t.equal(stats.batch_means(v, { batches = 5 }).n, 5)
t.near(stats.batch_means({ 100, 1, 2, 3, 4 }, { batches = 2 }).value, 2.5, 1e-12, "the rest is left out at the front")
t.fails(function() stats.batch_means(v, { batches = 11 }) end, "11 batches")

-- warm-up: a fall over the first 100 of 500 is cut about there; a series that only rises has no cut
local warming, rising = {}, {}
for i = 1, 500 do
  warming[i] = 10 * math.max(0, 1 - i / 100) + 0.5 * random.normal(1, random.USER, 3, i)
  rising[i] = i
end
local cut = stats.mser5(warming)
t.truth(cut >= 60 and cut <= 130 and cut % 5 == 0, "cut at " .. tostring(cut))
t.equal(stats.mser5(rising), nil)
t.truth(stats.mser5(autoregressive(3, 500, 0.3)) < 250)

-- settled: a queue that keeps its length, and one that grows until arrivals end; two replicas count as one system
local lathe    = require "lathe"
local workload = require "lathe.workload"
-- a request takes 5 steps of a tenth of a second, alone in each: a replica serves two a second
local sim <close> = lathe.model { "sim", step_us = 100000, prefill_us = 0, prefill_context_ns = 0, decode_us = 0, decode_context_ns = 0 }
local function simulated(rate, replicas)
  local run <close> = lathe.run { model = sim, clock = "virtual", workers = { model = replicas }, trace = { rows = "steps" },
    engine = { batch_requests = 1 },
    workload = workload.poisson { rate = rate, requests = 1000, seed = 2, prompt = workload.fixed(1), output = workload.fixed(5) } }
  return stats.settled(run)
end
local calm = simulated(1, 1)
t.equal(calm.settled, true)
t.equal(calm.warning, nil)
t.near(calm.utilisation, 0.5, 0.05)
local swamped = simulated(3, 1)
t.equal(swamped.settled, false)
t.near(swamped.growth, 1, 0.15)
t.near(swamped.utilisation, 1, 0.01)
t.truth(swamped.warning:find("never settled", 1, true), swamped.warning)
calm = simulated(2, 2)
t.equal(calm.settled, true)
t.near(calm.utilisation, 0.5, 0.05)
swamped = simulated(5, 2)
t.equal(swamped.settled, false)
t.near(swamped.growth, 1, 0.3)
