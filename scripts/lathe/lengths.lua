-- SPDX-License-Identifier: MIT
-- Distributions of lengths in tokens, for lathe.workload. Each is a table that says what it
-- is (so that the run's row can), with a method `draw(seed, stream, counter)` that gives a
-- whole number of at least `min` (1) and at most `max`.
local check  = require "lathe.check"
local random = require "lathe.random"

local lengths = {}
local Distribution = {}
Distribution.__index = Distribution

local values_of = setmetatable({}, { __mode = "k" }) -- empirical ones: not part of the description

local raw = {
  fixed = function(d) return d.tokens end,
  uniform = function(d, seed, stream, i)
    return d.from + math.floor(random.unit(seed, random.LENGTHS, stream, i) * (d.to - d.from + 1))
  end,
  lognormal = function(d, seed, stream, i)
    return d.median * math.exp(d.sigma * random.normal(seed, random.LENGTHS, stream, i))
  end,
  exponential = function(d, seed, stream, i)
    return d.mean * random.exponential(seed, random.LENGTHS, stream, i)
  end,
  empirical = function(d, seed, stream, i)
    local values = values_of[d]
    return values[random.index(#values, seed, random.LENGTHS, stream, i)]
  end,
}

function Distribution:draw(seed, stream, counter)
  local value = math.floor(raw[self.kind](self, seed, stream, counter) + 0.5)
  return math.tointeger(math.max(self.min or 1, math.min(value, self.max or 1 << 24)))
end

local function make(kind, t)
  t.kind = kind
  return setmetatable(t, Distribution)
end

local function bounds(what, t)
  local min = check.integer(what, t, "min", 1, 1 << 24, 1)
  return min, check.integer(what, t, "max", min, 1 << 24, 1 << 24)
end

function lengths.is(value) return getmetatable(value) == Distribution end

function lengths.fixed(tokens)
  return make("fixed", { tokens = check.integer("workload.fixed", { tokens = tokens }, "tokens", 1, 1 << 24) })
end

function lengths.uniform(t)
  check.fields("workload.uniform", t, { "from", "to" })
  local from = check.integer("workload.uniform", t, "from", 1, 1 << 24)
  return make("uniform", { from = from, to = check.integer("workload.uniform", t, "to", from, 1 << 24) })
end

-- exp(N(ln median, sigma²)), rounded.
function lengths.lognormal(t)
  check.fields("workload.lognormal", t, { "median", "sigma", "min", "max" })
  local min, max = bounds("workload.lognormal", t)
  return make("lognormal", { median = check.number("workload.lognormal", t, "median", 1, 1 << 24),
                             sigma = check.number("workload.lognormal", t, "sigma", 0, 20), min = min, max = max })
end

function lengths.exponential(t)
  check.fields("workload.exponential", t, { "mean", "min", "max" })
  local min, max = bounds("workload.exponential", t)
  return make("exponential", { mean = check.number("workload.exponential", t, "mean", 1, 1 << 24), min = min, max = max })
end

-- Draws with replacement from an array of lengths.
function lengths.empirical(values)
  check.samples("workload.empirical", values, 1)
  local d = make("empirical", { values = #values })
  values_of[d] = table.move(values, 1, #values, 1, {})
  return d
end

return lengths
