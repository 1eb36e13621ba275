-- Closed formulas of queueing theory against values in print, and against each other.
-- SPDX-License-Identifier: MIT
local queueing = require "lathe.queueing"
local t        = require "support"

-- M/M/1 at 0.5, 0.8, 0.9, 0.95: first come first served, shortest first, shortest remaining first
local exponential = queueing.exponential()
for _, row in ipairs { { 0.5, 2, 1.713, 1.425 }, { 0.8, 5, 2.882, 2.353 }, { 0.9, 10, 4.197, 3.552 }, { 0.95, 20, 6.264, 5.541 } } do
  t.near(queueing.fcfs(exponential, row[1]), row[2], 1e-9, "FCFS at " .. row[1])
  t.near(queueing.sjf(exponential, row[1]), row[3], 0.0005, "SJF at " .. row[1])
  t.near(queueing.srpt(exponential, row[1]), row[4], 0.0005, "SRPT at " .. row[1])
end
t.near(queueing.mm1_percentile(0.8, 0.99), 23.026, 0.001, "p99")
t.near(queueing.mm1_percentile(0.8, 0.5), math.log(2) / 0.2, 1e-12, "median")

-- M/D/1: half of M/M/1's wait; equal jobs don't overtake each other, whatever the policy
local fixed = queueing.fixed()
t.near(queueing.wait(fixed, 0.8), 2, 1e-12, "M/D/1")
t.near(queueing.wait(exponential, 0.8), 4, 1e-12, "M/M/1")
t.near(queueing.sjf(fixed, 0.8), 3, 1e-12, "M/D/1, SJF")
t.near(queueing.srpt(fixed, 0.8), 3, 1e-12, "M/D/1, SRPT")

-- Two sizes, 1/2 and 3/2, are two classes: Cobham's formula by hand. λ = 0.8, E[S²] = 5/4, ρ₁ = 0.2.
local two = queueing.empirical { 10, 30 }
local residual <const> = 0.8 * 1.25 / 2
t.near(queueing.wait(two, 0.8), residual / 0.2, 1e-12, "two sizes")
t.near(queueing.sjf(two, 0.8), 1 + 0.5 * residual / 0.8 + 0.5 * residual / (0.8 * 0.2), 1e-12, "two sizes, SJF")
-- SRPT: a small one waits for small ones and the last half of large ones: λ(½·¼ + ½·¼)/2 / (1 − 0.2);
-- a large one for all, and is served its first half in peace, the rest at a rate of 0.8.
t.near(queueing.srpt(two, 0.8), 0.5 * (0.1 / 0.8 + 0.5) + 0.5 * (residual / (0.8 * 0.2) + 0.5 + 1 / 0.8), 1e-12, "two sizes, SRPT")

-- A discrete exponential is nearly the continuous one.
local values = {}
for i = 1, 20000 do values[i] = -math.log(1 - (i - 0.5) / 20000) end
local stepped = queueing.empirical(values)
t.near(queueing.fcfs(stepped, 0.8), 5, 0.01, "stepped FCFS")
t.near(queueing.sjf(stepped, 0.8), queueing.sjf(exponential, 0.8), 0.005, "stepped SJF")
t.near(queueing.srpt(stepped, 0.8), queueing.srpt(exponential, 0.8), 0.005, "stepped SRPT")

-- Erlang C: probability of waiting and mean wait, as tables have them
for _, row in ipairs { { 1, 0.8, 0.8, 4 }, { 2, 0.75, 9 / 14, 9 / 7 }, { 10, 0.9, 0.6687, 0.6687 }, { 100, 0.9, 0.2169, 0.02169 },
                       { 1000, 0.95, 0.0683, 0.00137 } } do
  local waits, wait = queueing.erlang_c(row[1], row[2])
  t.near(waits / row[3], 1, 0.001, ("Erlang C of %d"):format(row[1]))
  t.near(wait / row[4], 1, 0.005, ("mean wait of %d"):format(row[1]))
end

-- The supermarket model: the predictions of Mitzenmacher (2001)
for _, row in ipairs { { 1, 0.9, 10 }, { 2, 0.9, 2.614 }, { 3, 0.9, 2.028 }, { 1, 0.99, 100 }, { 2, 0.99, 5.432 }, { 3, 0.99, 3.858 },
                       { 2, 0.5, 1.2657 } } do
  t.near(queueing.power_of(row[1], row[2]), row[3], 0.001, ("power of %d at %g"):format(row[1], row[2]))
end
for d = 1, 3 do
  t.near(queueing.power_of_from_empty(d, 0.7, 200, 300), queueing.power_of(d, 0.7), 0.001, ("power of %d, settled"):format(d))
  t.truth(queueing.power_of_from_empty(d, 0.9, 0, 5) < 0.9 * queueing.power_of(d, 0.9), "it begins empty")
end
t.near(queueing.relaxation(0.9), 379.7, 0.1, "relaxation")

t.fails(function() queueing.fcfs(exponential, 1) end, "rho")
t.fails(function() queueing.erlang_c(0, 0.9) end, "servers")
t.fails(function() queueing.power_of(0, 0.9) end, "\"d\"")
t.fails(function() queueing.empirical { 1, 0 } end, "more than 0")
