-- Known coefficients are found again in made-up steps; impossible ones become 0; the profile reads back.
-- SPDX-License-Identifier: MIT
local lathe     = require "lathe"
local calibrate = require "lathe.calibrate"
local random    = require "lathe.random"
local workload  = require "lathe.workload"
local t         = require "support"

local TRUE <const> = { step_us = 900, floor_us = 0, prefill_us = 55, prefill_context_ns = 70, decode_us = 140, decode_context_ns = 400,
                       padding_us = 30 }

local function unit(i, stream) return random.unit(5, random.USER, stream, i) end

-- Steps of all kinds; `noise` is the sigma of their log.
local function steps(n, noise, truth, padded)
  local rows = {}
  for i = 1, n do
    local prefill, decode = math.floor(unit(i, 1) * 512), math.floor(unit(i, 2) * 32)
    if i % 3 == 0 then prefill = 0 end
    if i % 3 == 1 then decode = 0 end
    local row = { prefill_tokens = prefill, prefill_token_context = prefill * math.floor(unit(i, 3) * 1500), decode_tokens = decode,
                  decode_context_tokens = decode * math.floor(50 + unit(i, 4) * 900),
                  padding_tokens = padded and i % 5 == 0 and math.floor(unit(i, 5) * 100) or 0 }
    row.duration_us = calibrate.predict(truth, row) * math.exp(noise * random.normal(5, random.NOISE, 6, i))
    rows[i] = row
  end
  return rows
end

-- exact
local fit = calibrate.fit(steps(300, 0, TRUE, true))
for name, value in pairs(TRUE) do t.near(fit.coefficients[name], value, 1e-6 * value + 1e-6, name) end
t.near(fit.noise, 0, 1e-6, "no noise")
t.near(fit.residuals[1].r2, 1, 1e-9, "R²")
t.equal(#fit.residuals, 4, "kinds of steps")

-- with noise: near, and inside the intervals
for _, weights in ipairs { "relative", "absolute" } do
  fit = calibrate.fit(steps(3000, 0.05, TRUE, true), { weights = weights })
  for name, value in pairs(TRUE) do t.near(fit.coefficients[name], value, 0.25 * value, weights .. " " .. name) end
  t.near(fit.noise, 0.05, 0.01, weights .. ": noise")
  t.truth(fit.residuals[1].median > 0.02 and fit.residuals[1].median < 0.05 and fit.residuals[1].p90 < 0.12, "errors are as large as the noise")
  local inside = 0
  for name, interval in pairs(fit.intervals) do
    t.truth(interval.low <= fit.coefficients[name] and fit.coefficients[name] <= interval.high, name .. ": the interval is around its figure")
    if interval.low <= TRUE[name] and TRUE[name] <= interval.high then inside = inside + 1 end
  end
  t.truth(inside >= 5, weights .. ": intervals hold what is true")
end

-- steps of a simulation, by the virtual clock: what it was told is what is found
local cost = { step_us = 3000, prefill_us = 90, prefill_context_ns = 60, decode_us = 300, decode_context_ns = 900 }
local sim = { "sim", noise = 0.03 }
for name, value in pairs(cost) do sim[name] = value end
local r <close> = lathe.run { model = lathe.model(sim), clock = "virtual", engine = { batch_tokens = 128 }, trace = { rows = "steps" },
  workload = workload.poisson { rate = 6, requests = 200, seed = 3, prompt = workload.uniform { from = 5, to = 900 },
                                output = workload.uniform { from = 1, to = 40 } } }
local db <close> = lathe.sql(r.database)
fit = calibrate.fit(calibrate.rows(db, { r.id }))
for name, value in pairs(cost) do t.near(fit.coefficients[name], value, 0.05 * value, "a simulation's " .. name) end
t.near(fit.noise, 0.03, 0.003, "a simulation's noise")
calibrate.write("sim.profile", fit)
lathe.model({ "sim", profile = "sim.profile" }):close() -- and it reads what was written

-- tables: a simulation whose kernels change at 8 rows and work in groups of 4 is found again, and predicts others
local tabled = { "sim", step_us = 0, prefill_us = 0, padding_us = 0, decode_us = 60, prefill_context_ns = 40, decode_context_ns = 700,
                 rows_us = "1:6200, 8:11500, 9:24000, 64:68000, 512:520000",
                 rest_us = "1:2900, 2:2700, 3:6300", outputs_us = "1:1700, 8:4600" }
local function tabled_run(model, requests, seed, batching, places)
  return lathe.run { model = model, clock = "virtual", engine = { batch_tokens = 96 }, trace = { rows = "step_requests" },
    batching = { batching, [places] = 8 },
    workload = workload.poisson { rate = 4, requests = requests, seed = seed, prompt = workload.uniform { from = 1, to = 130 },
                                  output = workload.uniform { from = 1, to = 20 } } }
end
tabled = lathe.model(tabled)
local first <close> = tabled_run(tabled, 700, 1, "continuous", "max_requests")
local rows = calibrate.rows(db, { first.id }, { skip = 5, gaps = true })
fit = calibrate.fit(rows, { form = "tables" })
t.truth(fit.residuals[1].p90 < 1e-4, "tables fit")
t.near(fit.coefficients.decode_context_ns, 700, 1, "decode_context_ns beside tables")
t.near(fit.coefficients.rest_us[3].us - fit.coefficients.rest_us[1].us, 3400, 5, "rest_us")
t.truth(calibrate.fit(rows).residuals[1].p90 > 0.05, "a line doesn't")
t.equal(#calibrate.rows(db, { first.id }), #rows + 5, "skip")
calibrate.write("tabled.profile", fit)
local again = lathe.model { "sim", profile = "tabled.profile", noise = 0 }
for _, other in ipairs { { "chunked", "max_requests" }, { "static", "batch" } } do
  local truth <close> = tabled_run(tabled, 300, 2, other[1], other[2])
  local predicted <close> = tabled_run(again, 300, 2, other[1], other[2])
  local worst, replayed = 0, calibrate.rows(db, { truth.id }, { gaps = true })
  for _, row in ipairs(replayed) do
    worst = math.max(worst, math.abs(calibrate.predict(fit.coefficients, row) / row.duration_us - 1))
  end
  t.near(worst, 0, 1e-3, other[1] .. ": each step")
  t.near(predicted.summary.ttft.p50 / truth.summary.ttft.p50, 1, 2e-3, other[1] .. ": TTFT")
  t.near(predicted.summary.tpot.p99 / truth.summary.tpot.p99, 1, 2e-3, other[1] .. ": TPOT")
  -- what Lua says a step takes is what the plugin takes
  for _, row in ipairs(calibrate.rows(db, { predicted.id })) do
    t.near(calibrate.predict(fit.coefficients, row) / row.duration_us, 1, 1e-5, other[1] .. ": plugin and script")
  end
end
-- steps that something disturbed are left out
for i = 10, #rows, 10 do rows[i].duration_us = 1.7 * rows[i].duration_us end
fit = calibrate.fit(rows, { form = "tables" })
t.near(fit.left_out, #rows // 10, 10, "disturbed steps")
t.truth(fit.residuals[1].median < 1e-3, "and the rest is fitted")

-- what was never seen is 0, and said to be unseen; no coefficient is negative
fit = calibrate.fit(steps(300, 0.02, TRUE, false))
t.equal(fit.coefficients.padding_us, 0, "padding that never was")
t.equal(fit.seen.padding_us, false)
local falling = steps(300, 0, TRUE, true)
for _, row in ipairs(falling) do row.duration_us = 100000 - 50 * row.prefill_tokens end
fit = calibrate.fit(falling, { weights = "absolute" })
for name, value in pairs(fit.coefficients) do t.truth(value >= 0, name .. " is not negative") end
t.equal(fit.coefficients.prefill_us, 0, "a negative slope")
-- the column that helps most at first leaves when others explain all: a = (1, 1, ½) / 1.5 and b, c = axes of (1, 1, −0.2)
local G, h = {}, { 1.9 / 1.5, 1, 1, 0, 0, 0 }
for i = 1, 6 do
  G[i] = {}
  for j = 1, 6 do G[i][j] = i == j and i <= 3 and 1 or 0 end
end
for j = 2, 3 do G[1][j], G[j][1] = 1 / 1.5, 1 / 1.5 end
local x = calibrate.nnls(G, h)
for i, value in ipairs { 0, 1, 1, 0, 0, 0 } do t.near(x[i], value, 1e-9, "nnls " .. i) end
-- a column that is another's multiple: one of them takes it all
local twins = steps(300, 0, TRUE, false)
for _, row in ipairs(twins) do
  row.padding_tokens = 2 * row.prefill_tokens
  row.duration_us = calibrate.predict({ step_us = 100, floor_us = 0, prefill_us = 20, prefill_context_ns = 0, decode_us = 5,
                                        decode_context_ns = 0, padding_us = 0 }, row)
end
fit = calibrate.fit(twins)
t.near(fit.coefficients.prefill_us + 2 * fit.coefficients.padding_us, 20, 1e-3, "columns that depend on each other")

-- a floor
local floored = { step_us = 200, floor_us = 6000, prefill_us = 55, prefill_context_ns = 70, decode_us = 140, decode_context_ns = 100, padding_us = 0 }
fit = calibrate.fit(steps(1500, 0.02, floored, false), { floor = true })
t.near(fit.coefficients.floor_us, 6000, 200, "floor_us")
t.near(fit.coefficients.prefill_us, 55, 6, "prefill_us beside a floor")
t.truth(fit.residuals[1].p90 < 0.08, "errors beside a floor")
t.equal(calibrate.fit(steps(600, 0.02, TRUE, false), { floor = true }).coefficients.floor_us, 0, "no floor where there is none")

-- the profile
fit = calibrate.fit(steps(300, 0.03, TRUE, true))
calibrate.write("x.profile", fit, { "machine: a test\nof two lines" })
local found, comments = {}, 0
for line in io.lines "x.profile" do
  local name, value = line:match "^([a-z_]+) = (%S+)$"
  if name then found[#found + 1], found[name] = name, tonumber(value) else
    comments = comments + 1
    t.equal(line:sub(1, 2), "# ", "a comment")
  end
end
t.equal(table.concat(found, " "), "step_us floor_us prefill_us prefill_context_ns decode_us decode_context_ns padding_us noise", "names")
t.near(found.decode_us, fit.coefficients.decode_us, 1e-3, "decode_us of the profile")
t.near(found.noise, fit.noise, 1e-5, "noise of the profile")
t.equal(comments, 6, "comments")

t.fails(function() calibrate.fit(steps(5, 0, TRUE, true)) end, "5 steps are too few")
t.fails(function() calibrate.fit(steps(300, 0, TRUE, true), { form = "curve" }) end, "\"line\" or \"tables\"")
t.fails(function() calibrate.fit(steps(300, 0, TRUE, true), { form = "tables", floor = true }) end, "tables have no floor")
t.fails(function() calibrate.fit(falling, { weights = "relatve" }) end, "\"relative\" or \"absolute\"")
t.fails(function() calibrate.write("no/such/folder/x", fit) end, "can't be written")
