-- SPDX-License-Identifier: MIT
-- Figures of samples, and how sure they are.
--
--   stats.mean(v)  stats.sd(v)  stats.median(v)  stats.percentile(v, 90)  stats.max(v)  stats.min(v)
--   stats.bootstrap(v[, { statistic = stats.median, level = 0.95, resamples = 2000, seed = 1 }])
--     → { value = …, low = …, high = … }
--   stats.paired_difference(a, b[, the same]) → the same of a[i] − b[i]
--   stats.mean_ci(v[, { level = 0.95 }])  stats.paired_ci(a, b[, …])   Student's t; also half, n, p (of "no difference")
--   stats.quantile_ci(v, 99[, …])     by order statistics; nil where the sample is too small for one
--   stats.ratio_ci(a, b[, …])         of mean(a) / mean(b), paired; stats.share_ci(k, n[, …]) of a share
--   stats.controlled_ci(v, c, expectation[, …])   a mean, with controls of known expectation
--   stats.bonferroni(level, n)        the level for each of n intervals that shall hold together
--   stats.holm(p)                     p values of several tests, adjusted (Holm 1979)
--
-- Bootstraps are percentile ones (Efron 1979): seeded, so a report says the same twice. What values
-- that follow each other need stands in lathe.stats_series: batch_means, block_bootstrap, mser5, settled.
local check         = require "lathe.check"
local core          = require "lathe.core"
local distributions = require "lathe.stats_distributions"
local estimators    = require "lathe.stats_estimators"
local random        = require "lathe.random"
local series        = require "lathe.stats_series"

local stats = {
  batch_means = series.batch_means, block_bootstrap = series.block_bootstrap, mser5 = series.mser5, settled = series.settled,
  ratio_ci = estimators.ratio_ci, controlled_ci = estimators.controlled_ci, share_ci = estimators.share_ci,
}

local BOOTSTRAP_STREAM <const> = 7

function stats.mean(values)
  check.samples("stats.mean", values, 1)
  local sum = 0
  for _, v in ipairs(values) do sum = sum + v end
  return sum / #values
end

-- Sample standard deviation (n − 1).
function stats.sd(values)
  check.samples("stats.sd", values, 2)
  local mean, sum = stats.mean(values), 0
  for _, v in ipairs(values) do sum = sum + (v - mean) ^ 2 end
  return math.sqrt(sum / (#values - 1))
end

-- Linear between the closest ranks (R's type 7, numpy's default); p from 0 to 100.
function stats.percentile(values, p)
  check.samples("stats.percentile", values, 1)
  check.number("stats.percentile", { p = p }, "p", 0, 100)
  local sorted = table.move(values, 1, #values, 1, {})
  table.sort(sorted)
  local place = 1 + (#sorted - 1) * p / 100
  local low = math.floor(place)
  local high = math.min(low + 1, #sorted)
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low)
end

function stats.median(values) return stats.percentile(values, 50) end

function stats.max(values)
  check.samples("stats.max", values, 1)
  return stats.percentile(values, 100)
end

function stats.min(values)
  check.samples("stats.min", values, 1)
  return stats.percentile(values, 0)
end

function stats.bootstrap(values, wishes)
  local what <const> = "stats.bootstrap"
  wishes = wishes or {}
  check.samples(what, values, 1)
  check.fields(what, wishes, { "statistic", "level", "resamples", "seed" })
  local statistic = wishes.statistic or stats.mean
  local level = check.number(what, wishes, "level", 0.5, 0.9999, 0.95)
  local resamples = check.integer(what, wishes, "resamples", 100, 1000000, 2000)
  local seed = check.integer(what, wishes, "seed", 0, math.maxinteger, 1)
  local n, found, sample = #values, {}, {}
  for r = 1, resamples do
    for i = 1, n do sample[i] = values[random.index(n, seed, random.USER, BOOTSTRAP_STREAM, (r - 1) * n + i)] end
    found[r] = statistic(sample)
  end
  local tail = 50 * (1 - level)
  return { value = statistic(values), low = stats.percentile(found, tail), high = stats.percentile(found, 100 - tail) }
end

function stats.paired_difference(a, b, wishes)
  check.samples("stats.paired_difference", a, 1)
  check.samples("stats.paired_difference", b, 1)
  if #a ~= #b then core.fail(("stats.paired_difference: %d values against %d: pairs need as many of both"):format(#a, #b)) end
  local differences = {}
  for i = 1, #a do differences[i] = a[i] - b[i] end
  return stats.bootstrap(differences, wishes)
end

-- ── intervals by theory ───────────────────────────────────────────────────────────────

function stats.normal_quantile(p)
  check.number("stats.normal_quantile", { p = p }, "p", 1e-300, 1 - 1e-16)
  return distributions.normal_quantile(p)
end

function stats.student_quantile(p, df)
  check.number("stats.student_quantile", { p = p }, "p", 1e-15, 1 - 1e-15)
  check.number("stats.student_quantile", { df = df }, "df", 1, 1e9)
  return distributions.student_quantile(p, df)
end

local function level_of(what, wishes)
  wishes = wishes or {}
  check.fields(what, wishes, { "level" })
  return check.number(what, wishes, "level", 0.5, 0.9999, 0.95)
end

function stats.mean_ci(values, wishes)
  check.samples("stats.mean_ci", values, 2)
  local result = series.student(values, level_of("stats.mean_ci", wishes))
  local t = result.half > 0 and result.value / (stats.sd(values) / math.sqrt(#values))
  result.p = t and 2 * distributions.student_cdf(-math.abs(t), #values - 1) or result.value == 0 and 1.0 or 0.0
  return result
end

function stats.paired_ci(a, b, wishes)
  check.samples("stats.paired_ci", a, 2)
  check.samples("stats.paired_ci", b, 2)
  if #a ~= #b then core.fail(("stats.paired_ci: %d values against %d: pairs need as many of both"):format(#a, #b)) end
  local differences = {}
  for i = 1, #a do differences[i] = a[i] - b[i] end
  return stats.mean_ci(differences, wishes)
end

-- The k-th smallest lies above the quantile with a probability that the binomial gives, whatever
-- the distribution (David and Nagaraja, Order Statistics, 7.1). Equal tails: a p99 at 95% needs
-- 368 values, which is where the views' p99 begins.
function stats.quantile_ci(values, p, wishes)
  local what <const> = "stats.quantile_ci"
  check.samples(what, values, 1)
  check.number(what, { p = p }, "p", 0.001, 99.999)
  local tail = (1 - level_of(what, wishes)) / 2
  local n, q = #values, p / 100
  local sorted = table.move(values, 1, n, 1, {})
  table.sort(sorted)
  local low, high = 0, n + 1
  for k = 1, n do
    if distributions.binomial_cdf(k - 1, n, q) <= tail then low = k end
    if 1 - distributions.binomial_cdf(k - 1, n, q) <= tail then
      high = k
      break
    end
  end
  if low < 1 or high > n then return nil end
  return { value = stats.percentile(values, p), low = sorted[low], high = sorted[high], n = n }
end

function stats.bonferroni(level, comparisons)
  check.number("stats.bonferroni", { level = level }, "level", 0.5, 0.9999)
  check.integer("stats.bonferroni", { comparisons = comparisons }, "comparisons", 1, 1000000)
  return 1 - (1 - level) / comparisons
end

function stats.holm(values)
  check.samples("stats.holm", values, 1)
  local order, adjusted, largest = {}, {}, 0
  for i = 1, #values do order[i] = i end
  table.sort(order, function(a, b) return values[a] < values[b] or values[a] == values[b] and a < b end)
  for rank, i in ipairs(order) do
    largest = math.max(largest, math.min(1, (#values - rank + 1) * values[i]))
    adjusted[i] = largest
  end
  return adjusted
end

-- One field of query rows as an array; rows where it is NULL are left out.
function stats.column(rows, name)
  local values = {}
  for _, row in ipairs(rows) do
    if row[name] ~= nil then values[#values + 1] = row[name] end
  end
  return values
end

return stats
