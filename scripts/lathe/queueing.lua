-- SPDX-License-Identifier: MIT
-- What queueing theory says exactly, to hold a simulator against. Poisson arrivals; times are in mean
-- service times, `rho` is the load of one server.
--
--   local sizes = queueing.exponential()    or .fixed(), .empirical { 3, 1, 4 } (each value alike, scaled to mean 1)
--   queueing.fcfs(sizes, 0.8)   queueing.sjf(sizes, 0.8)   queueing.srpt(sizes, 0.8)      mean response of M/G/1
--   queueing.wait(sizes, 0.8)               mean wait, first come first served (Pollaczek 1930, Khinchine 1932)
--   queueing.mm1_percentile(0.8, 0.99)      of an M/M/1's response, which is exponential
--   queueing.erlang_c(10, 0.9)              → probability of waiting, mean wait, of M/M/n (Erlang 1917)
--   queueing.power_of(2, 0.9)               mean response at infinitely many servers, the shortest of d drawn queues
--   queueing.power_of_from_empty(2, 0.9, 100, 150)   the same of who comes between those times, all servers empty at 0
--   queueing.relaxation(0.9)                time in which an M/M/1 forgets how it began, by a factor e
--
-- SJF without preemption is Cobham's (1954) priorities with a class for each size; SRPT is Schrage and
-- Miller (1966). Where sizes have atoms, equal ones go first come first served.
local check = require "lathe.check"
local core  = require "lathe.core"

local queueing = {}

-- ── sizes ─────────────────────────────────────────────────────────────────────────────
--
-- Each knows `second` (the second moment; the mean is 1), and two integrals:
--   average(g)    E g(x, …) over sizes x, of g(x, below, upto, second, above): E[S; S < x], E[S; S ≤ x],
--                 E[S²; S ≤ x], P(S > x)
--   residence(λ)  ∫ P(S > t) / (1 − λ E[S; S ≤ t]) dt: the time in which what has begun is served, SRPT's
--                 smaller newcomers going first

local MOST <const>, PANELS <const> = 60, 6000 -- Simpson's rule; e^−60 is left out

local function simpson(f)
  local h, sum = MOST / PANELS, f(0) + f(MOST)
  for i = 1, PANELS - 1 do sum = sum + (i % 2 == 1 and 4 or 2) * f(i * h) end
  return sum * h / 3
end

function queueing.exponential()
  local function upto(x) return 1 - (1 + x) * math.exp(-x) end
  local function average(g)
    return simpson(function(x)
      local above, first = math.exp(-x), upto(x)
      return above * g(x, first, first, 2 - (2 + 2 * x + x * x) * above, above)
    end)
  end
  local function residence(lambda) return simpson(function(t) return math.exp(-t) / (1 - lambda * upto(t)) end) end
  return { second = 2, average = average, residence = residence }
end

-- Each value alike; scaled so that their mean is 1.
function queueing.empirical(values)
  check.samples("queueing.empirical", values, 1)
  local sorted, sum, count = table.move(values, 1, #values, 1, {}), 0, #values
  table.sort(sorted)
  for _, v in ipairs(sorted) do sum = sum + v end
  if sorted[1] <= 0 then core.fail(("queueing.empirical: a size of %g: they should be more than 0"):format(sorted[1])) end
  local atoms, first, second, seen = {}, 0, 0, 0
  for i, v in ipairs(sorted) do
    local x = v * count / sum
    first, second, seen = first + x / count, second + x * x / count, seen + 1
    if v ~= sorted[i + 1] then
      local before = atoms[#atoms]
      atoms[#atoms + 1] = { x = x, share = (seen - (before and before.seen or 0)) / count, below = before and before.upto or 0,
                            upto = first, second = second, seen = seen, above = 1 - seen / count }
    end
  end
  local function average(g)
    local total = 0
    for _, a in ipairs(atoms) do total = total + a.share * g(a.x, a.below, a.upto, a.second, a.above) end
    return total
  end
  local function residence(lambda)
    local total, from, above, upto = 0, 0, 1, 0
    for _, a in ipairs(atoms) do
      total = total + (a.x - from) * above / (1 - lambda * upto)
      from, above, upto = a.x, a.above, a.upto
    end
    return total
  end
  return { second = second, average = average, residence = residence }
end

function queueing.fixed() return queueing.empirical { 1 } end

-- ── one server ────────────────────────────────────────────────────────────────────────

local function load_of(what, rho) return check.number(what, { rho = rho }, "rho", 0, 1 - 1e-9) end

function queueing.wait(sizes, rho) return load_of("queueing.wait", rho) * sizes.second / (2 * (1 - rho)) end

function queueing.fcfs(sizes, rho) return 1 + queueing.wait(sizes, rho) end

function queueing.sjf(sizes, rho)
  load_of("queueing.sjf", rho)
  return 1 + sizes.average(function(_, below, upto)
    return rho * sizes.second / (2 * (1 - rho * below) * (1 - rho * upto))
  end)
end

function queueing.srpt(sizes, rho)
  load_of("queueing.srpt", rho)
  return sizes.residence(rho) + sizes.average(function(x, below, upto, second, above)
    return rho * (second + x * x * above) / (2 * (1 - rho * below) * (1 - rho * upto))
  end)
end

function queueing.mm1_percentile(rho, p)
  load_of("queueing.mm1_percentile", rho)
  return -math.log(1 - check.number("queueing.mm1_percentile", { p = p }, "p", 0, 1 - 1e-15)) / (1 - rho)
end

-- 1 / (1 − √ρ)²: the inverse of the spectral gap (Morse 1955).
function queueing.relaxation(rho) return (1 - math.sqrt(load_of("queueing.relaxation", rho))) ^ -2 end

-- ── many servers ──────────────────────────────────────────────────────────────────────

-- By Erlang's B, whose recursion doesn't overflow: B(0) = 1, B(k) = a B(k − 1) / (k + a B(k − 1)).
function queueing.erlang_c(servers, rho)
  check.integer("queueing.erlang_c", { servers = servers }, "servers", 1, 1000000)
  local offered, b = servers * load_of("queueing.erlang_c", rho), 1
  for k = 1, servers do b = offered * b / (k + offered * b) end
  local c = b / (1 - rho * (1 - b))
  return c, c / (servers * (1 - rho))
end

-- Σ λ^((d^i − d) / (d − 1)) (Vvedenskaya, Dobrushin, Karpelevich 1996; Mitzenmacher 1996).
function queueing.power_of(d, rho)
  check.integer("queueing.power_of", { d = d }, "d", 1, 1000)
  if d == 1 then return 1 / (1 - load_of("queueing.power_of", rho)) end
  local sum, exponent = 0, 0
  load_of("queueing.power_of", rho)
  repeat
    local term = rho ^ exponent
    sum, exponent = sum + term, d * exponent + d
  until term < 1e-17
  return sum
end

-- The share of servers with k requests at least follows s_k' = λ (s_{k−1}^d − s_k^d) − (s_k − s_{k+1}); with d = 1
-- that is the M/M/1 itself. Who comes finds E[T] = 1 + Σ s_k^d, its response: first come first served. Euler's steps.
function queueing.power_of_from_empty(d, rho, from, to)
  local what <const>, STEP <const>, LEVELS <const> = "queueing.power_of_from_empty", 0.05, d == 1 and 200 or 40
  check.integer(what, { d = d }, "d", 1, 1000)
  load_of(what, rho)
  check.number(what, { from = from }, "from", 0, 1e6)
  check.number(what, { to = to }, "to", from + STEP, 1e6)
  local s, powers, sum, count = { [0] = 1 }, { [0] = 1 }, 0, 0
  for k = 1, LEVELS + 1 do s[k], powers[k] = 0, 0 end
  for step = 1, math.floor(to / STEP) do
    local found = 1
    for k = 1, LEVELS do
      powers[k] = s[k] ^ d
      found = found + powers[k]
    end
    if step * STEP > from then sum, count = sum + found, count + 1 end
    for k = 1, LEVELS do s[k] = s[k] + STEP * (rho * (powers[k - 1] - powers[k]) - (s[k] - s[k + 1])) end
  end
  return sum / count
end

return queueing
