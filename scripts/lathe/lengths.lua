-- SPDX-License-Identifier: MIT
-- Distributions of lengths in tokens, for lathe.workload. Each is a table that says what it
-- is (so that the run's row can), with a method `draw(seed, stream, counter)` that gives a
-- whole number of at least `min` (1) and at most `max`, and `expected()`, the mean. The numbers come from
-- core/workload_draw.c, which is also what a run draws from.
local check = require "lathe.check"
local core  = require "lathe.core"

local lengths = {}
local Distribution = {}
Distribution.__index = Distribution

local drawn_by = setmetatable({}, { __mode = "k" }) -- what draws: not part of the description

local MOST <const> = 1 << 24

function Distribution:draw(seed, stream, counter) return drawn_by[self]:draw(seed, stream, counter) end
function Distribution:expected() return drawn_by[self]:mean() end

local function make(kind, t, parameters)
  t.kind = kind
  parameters.min, parameters.max = t.min, t.max
  drawn_by[t] = core.length(kind, parameters)
  return setmetatable(t, Distribution)
end

local function bounds(what, t)
  local min = check.integer(what, t, "min", 1, MOST, 1)
  return min, check.integer(what, t, "max", min, MOST, MOST)
end

function lengths.is(value) return getmetatable(value) == Distribution end

-- What core.workload draws it with.
function lengths.drawn_by(distribution) return drawn_by[distribution] end

function lengths.fixed(tokens)
  tokens = check.integer("workload.fixed", { tokens = tokens }, "tokens", 1, MOST)
  return make("fixed", { tokens = tokens }, { a = tokens })
end

function lengths.uniform(t)
  check.fields("workload.uniform", t, { "from", "to" })
  local from = check.integer("workload.uniform", t, "from", 1, MOST)
  local to = check.integer("workload.uniform", t, "to", from, MOST)
  return make("uniform", { from = from, to = to }, { a = from, b = to })
end

-- exp(N(ln median, sigma²)), rounded.
function lengths.lognormal(t)
  check.fields("workload.lognormal", t, { "median", "sigma", "min", "max" })
  local min, max = bounds("workload.lognormal", t)
  local median = check.number("workload.lognormal", t, "median", 1, MOST)
  local sigma = check.number("workload.lognormal", t, "sigma", 0, 20)
  return make("lognormal", { median = median, sigma = sigma, min = min, max = max }, { a = median, b = sigma })
end

function lengths.exponential(t)
  check.fields("workload.exponential", t, { "mean", "min", "max" })
  local min, max = bounds("workload.exponential", t)
  local mean = check.number("workload.exponential", t, "mean", 1, MOST)
  return make("exponential", { mean = mean, min = min, max = max }, { a = mean })
end

-- Draws with replacement from an array of lengths.
function lengths.empirical(values)
  check.samples("workload.empirical", values, 1)
  return make("empirical", { values = #values }, { values = values })
end

-- As the trace's row says, for workload.replay.
function lengths.traced(which, max)
  return make("trace", { column = which, max = max }, {})
end

return lengths
