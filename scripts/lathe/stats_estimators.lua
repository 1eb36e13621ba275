-- SPDX-License-Identifier: MIT
-- Intervals of what is made of pairs and counts, for lathe.stats: ratio_ci, controlled_ci, share_ci.
local check         = require "lathe.check"
local core          = require "lathe.core"
local distributions = require "lathe.stats_distributions"

local estimators = {}

local function level_of(what, wishes)
  wishes = wishes or {}
  check.fields(what, wishes, { "level" })
  return check.number(what, wishes, "level", 0.5, 0.9999, 0.95)
end

local function check_pairs(what, a, b)
  check.samples(what, a, 3)
  check.samples(what, b, 3)
  if #a ~= #b then core.fail(("%s: %d values against %d: pairs need as many of both"):format(what, #a, #b)) end
end

local function moments(a, b)
  local n, ma, mb, saa, sab, sbb = #a, 0, 0, 0, 0, 0
  for i = 1, n do ma, mb = ma + a[i] / n, mb + b[i] / n end
  for i = 1, n do
    local da, db = a[i] - ma, b[i] - mb
    saa, sab, sbb = saa + da * da, sab + da * db, sbb + db * db
  end
  return n, ma, mb, saa, sab, sbb
end

local function around(value, half, n) return { value = value, low = value - half, high = value + half, half = half, n = n } end

-- mean(a) / mean(b) of pairs, by the delta method: the spread of (a − r b) / mean(b).
function estimators.ratio_ci(a, b, wishes)
  local what <const> = "stats.ratio_ci"
  check_pairs(what, a, b)
  local level, n, ma, mb, saa, sab, sbb = level_of(what, wishes), moments(a, b)
  if mb == 0 then core.fail(what .. ": the denominators' mean is 0") end
  local r = ma / mb
  local variance = math.max(0, saa - 2 * r * sab + r * r * sbb) / (n - 1) / n / (mb * mb)
  return around(r, distributions.student_quantile(0.5 + level / 2, n - 1) * math.sqrt(variance), n)
end

-- The mean of `values`, each seen beside a control whose expectation is known: what the controls were off by
-- is taken off the values, by regression (Lavenberg and Welch, Management Science 27, 1981). `variance` is
-- what share of it remains. The interval is the regression's at the expectation.
function estimators.controlled_ci(values, controls, expectation, wishes)
  local what <const> = "stats.controlled_ci"
  check_pairs(what, values, controls)
  check.number(what, { expectation = expectation }, "expectation", -math.huge, math.huge)
  local level, n, mv, mc, svv, svc, scc = level_of(what, wishes), moments(values, controls)
  local slope = scc > 0 and svc / scc or 0
  local rest = math.max(0, svv - slope * svc)
  local spread = rest / (n - 2) * (1 / n + (scc > 0 and (mc - expectation) ^ 2 / scc or 0))
  local result = around(mv - slope * (mc - expectation), distributions.student_quantile(0.5 + level / 2, n - 2) * math.sqrt(spread), n)
  result.variance = svv > 0 and rest / svv or 1
  return result
end

-- A share of which `successes` of `trials` were seen: Clopper and Pearson's (1934), which never covers too little.
function estimators.share_ci(successes, trials, wishes)
  local what <const> = "stats.share_ci"
  check.integer(what, { trials = trials }, "trials", 1, 1000000000)
  check.integer(what, { successes = successes }, "successes", 0, trials)
  local tail = (1 - level_of(what, wishes)) / 2
  local function solve(goes_on)
    local low, high = 0, 1
    for _ = 1, 60 do
      local middle = (low + high) / 2
      if goes_on(middle) then low = middle else high = middle end
    end
    return (low + high) / 2
  end
  local low = successes == 0 and 0 or solve(function(p) return 1 - distributions.binomial_cdf(successes - 1, trials, p) < tail end)
  local high = successes == trials and 1 or solve(function(p) return distributions.binomial_cdf(successes, trials, p) > tail end)
  return { value = successes / trials, low = low, high = high, n = trials }
end

return estimators
