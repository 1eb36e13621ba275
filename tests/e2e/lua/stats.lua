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
