-- SPDX-License-Identifier: MIT
-- Figures of samples, and how sure they are.
--
--   stats.mean(v)  stats.sd(v)  stats.median(v)  stats.percentile(v, 90)  stats.max(v)  stats.min(v)
--   stats.bootstrap(v[, { statistic = stats.median, level = 0.95, resamples = 2000, seed = 1 }])
--     → { value = …, low = …, high = … }
--   stats.paired_difference(a, b[, the same]) → the same of a[i] − b[i]
--
-- Intervals are percentile bootstraps (Efron 1979): seeded, so a report says the same twice.
local check  = require "lathe.check"
local core   = require "lathe.core"
local random = require "lathe.random"

local stats = {}

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

-- One field of query rows as an array; rows where it is NULL are left out.
function stats.column(rows, name)
  local values = {}
  for _, row in ipairs(rows) do
    if row[name] ~= nil then values[#values + 1] = row[name] end
  end
  return values
end

return stats
