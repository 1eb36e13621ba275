-- How well does the simulator, calibrated on one real run, predict other real runs?
-- SPDX-License-Identifier: MIT
--
-- One run of the model, made of all that a step can be (lathe.calibrate_plan), gives a cost profile: tables
-- by rows and by outputs, and the context's share (lathe.calibrate). Five other runs, of other rates, schedulers and batchings, are
-- predicted by it: the same arrivals and lengths through the same stages by the same names, on the virtual
-- clock. Their rates are shares of what each configuration can do at most, which a short closed run measures.
--
-- A virtual machine doesn't keep its speed for ten minutes, so a repeat is the whole comparison over again: two
-- or three of the runs, the calibrating run in their middle, the others; the order turns from repeat to repeat.
-- A repeat's runs are predicted by its own calibration alone, and the median of the repeats' ratios counts.
--
--   step      mean time of a step: the simulator's for the very batches that the run had, against its own
--   tokens/s  of the whole run; TTFT and TPOT: p50 and p99 over the requests that came after the first few
--
-- Of the simulations, which draw the steps' noise, the median counts, too. Allowed are 2% for steps, 5% for
-- the rest, and for a p99 the spread of the repeats if that is more. A reference batch before and after every
-- run tells how far the machine itself drifted: where others use it, errors are theirs.
--
--   lathe run experiments/sim_fidelity.lua
--   lathe run experiments/sim_fidelity.lua -- --repeats 5 --requests 100 --report
--   lathe run experiments/sim_fidelity.lua -- --form line       what straight lines alone would predict
local lathe     = require "lathe"
local calibrate = require "lathe.calibrate"
local plan      = require "lathe.calibrate_plan"
local stats     = require "lathe.stats"
local workload  = require "lathe.workload"

local RUNS <const> = {
  { scheduler = "fcfs", batching = "continuous",    load = 0.5 },
  { scheduler = "fcfs", batching = "continuous",    load = 0.85 },
  { scheduler = "srpt", batching = "chunked",       load = 0.7 },
  { scheduler = "fcfs", batching = "prefill_first", load = 0.7 },
  { scheduler = "fcfs", batching = "static",        load = 0.6 },
}
local FIGURES <const> = {
  { name = "step_ms",      title = "step, mean ms", allowed = 0.02 },
  { name = "tokens_per_s", title = "tokens/s",      allowed = 0.05 },
  { name = "ttft_p50",     title = "TTFT p50 ms",   allowed = 0.05 },
  { name = "ttft_p99",     title = "TTFT p99 ms",   allowed = 0.05, spread = true },
  { name = "tpot_p50",     title = "TPOT p50 ms",   allowed = 0.05 },
  { name = "tpot_p99",     title = "TPOT p99 ms",   allowed = 0.05, spread = true },
}
local WARM_STEPS <const>, WARM_REQUESTS <const> = 12, 5 -- touch memory for the first time
local BATCH_TOKENS <const> = 128 -- most rows of a step; prompts that are cut by it give steps without output
local SIMULATIONS <const>, OTHER_SEED <const> = 15, 1000 -- no draw is one of a measured run
local QUIET <const> = 2 -- percent of the processors that others may use

local function batching_of(o, name)
  local all = {
    continuous    = { max_requests = o.places },
    chunked       = { max_requests = o.places, budget = o.budget },
    prefill_first = { max_requests = o.places },
    static        = { batch = o.places, window_ms = 50 },
  }
  all[name][1] = name
  return all[name]
end

-- What is measured: the model by the real clock, or (--truth) a simulation in its place.
local function real_run(o, s, d)
  d.model, d.clock = s.model, s.clock
  d.trace = s.clock == "virtual" and { rows = "step_requests" } or { attention = false }
  d.engine = { batch_tokens = BATCH_TOKENS, max_requests = 1024, threads = s.clock == "real" and o.threads > 0 and o.threads or nil }
  d.seed = d.seed or o.seed
  return lathe.run(d)
end

local function simulated_run(s, d)
  d.model, d.clock, d.trace = s.simulator, "virtual", { rows = "requests" }
  d.engine = { batch_tokens = BATCH_TOKENS, max_requests = 1024 }
  return lathe.run(d)
end

local function lengths(o)
  return workload.uniform { from = math.max(1, o.prompt // 2), to = o.prompt + o.prompt // 2 },
         workload.uniform { from = math.max(2, o.tokens // 2), to = o.tokens + o.tokens // 2 }
end

local function load_of(o, run, rate)
  local prompt, output = lengths(o)
  return workload.poisson { rate = rate, requests = o.requests, seed = o.seed + run.number, prompt = prompt, output = output,
                            predicted = true }
end

-- ── the run that is calibrated on ──────────────────────────────────────────────────────

-- Seconds of a prompt of 64 tokens, and all that is slow at first is done.
local function warm_up(o, s)
  local second
  for _ = 1, 2 do
    local r <close> = real_run(o, s, { workload = { name = "warm-up", concurrency = 1, requests = {
      { prompt_tokens = 64, output_tokens = 4 }, { prompt_tokens = 64, output_tokens = 4 }, { prompt_tokens = 64, output_tokens = 4 } } },
      label = "warm-up" })
    second = r:query "select min(end_ns - start_ns) / 1e9 as s from step where run_id = :run and prefill_tokens = 64"[1].s
  end
  return second
end

-- ── the machine ────────────────────────────────────────────────────────────────────────

-- Processor time so far, all and this process's own, in the kernel's ticks; nothing where it doesn't say.
local function processor_time()
  local machine, own = io.open "/proc/stat", io.open "/proc/self/stat"
  if not machine or not own then return nil end
  local user, nice, system, idle, io_wait, irq, soft_irq, steal = machine:read "l":match(("%s+(%d+)"):rep(8))
  local mine_user, mine_system = own:read "a":match "%) %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ (%d+) (%d+)"
  machine:close()
  own:close()
  local busy = user + nice + system + irq + soft_irq + steal
  return { all = busy + idle + io_wait, others = busy - mine_user - mine_system }
end

-- The same batch again and again: the median over its steps of the time of each against the first time's.
local function reference(o, s, drift)
  local requests = {}
  for i = 1, 6 do requests[i] = { at = 0, prompt_tokens = 64, output_tokens = 16 } end
  local r <close> = real_run(o, s, { workload = { name = "reference", requests = requests }, label = "reference" })
  local rows = calibrate.rows(lathe.sql(r.database), { r.id })
  drift.first = drift.first or rows
  local ratios = {}
  for i, row in ipairs(rows) do ratios[i] = row.duration_us / drift.first[i].duration_us end
  drift[#drift + 1] = stats.median(ratios) - 1
end

-- ── figures ────────────────────────────────────────────────────────────────────────────

local function figures_of(r)
  local rows = r:query(([[
    select (first_token_ns - planned_ns) / 1e6 as ttft,
           (finish_ns - first_token_ns) / 1e6 / nullif(output_tokens - 1, 0) as tpot
    from request where run_id = :run and id > %d]]):format(WARM_REQUESTS))
  local all = r:query [[select 1e9 * sum(output_tokens) / (max(finish_ns) - min(planned_ns)) as tokens_per_s
                        from request where run_id = :run]][1]
  local ttft, tpot = stats.column(rows, "ttft"), stats.column(rows, "tpot")
  return { tokens_per_s = all.tokens_per_s, ttft_p50 = stats.median(ttft), ttft_p99 = stats.percentile(ttft, 99),
           tpot_p50 = stats.median(tpot), tpot_p99 = stats.percentile(tpot, 99) }
end

-- The simulator's time for the batches that a run had, and by how much a single step is off.
local function replayed(rows, coefficients)
  local predicted, errors = {}, {}
  for i, row in ipairs(rows) do
    predicted[i] = calibrate.predict(coefficients, row)
    errors[i] = math.abs(predicted[i] / row.duration_us - 1)
  end
  return stats.mean(predicted) / 1000, stats.median(errors)
end

local function saturation(o, s, run)
  local prompt, output = lengths(o)
  local r <close> = real_run(o, s, { scheduler = run.scheduler, batching = batching_of(o, run.batching),
    workload = workload.closed { concurrency = 2 * o.places, requests = math.max(4 * o.places, o.requests // 2), seed = o.seed,
                                 prompt = prompt, output = output, predicted = true },
    label = "saturation of " .. run.batching })
  return r:query "select 1e9 * count(*) / (max(finish_ns) - min(arrival_ns)) as rate from request where run_id = :run" [1].rate
end

-- ── the whole ──────────────────────────────────────────────────────────────────────────

local function measure(o, s, run, number)
  local r <close> = real_run(o, s, { scheduler = run.scheduler, batching = batching_of(o, run.batching),
                                     workload = load_of(o, run, run.rate),
                                     label = run.title, factors = { run = run.number, ["repeat"] = number }, seed = o.seed + number })
  local found = figures_of(r)
  found.rows = calibrate.rows(lathe.sql(r.database), { r.id }, { skip = WARM_STEPS, gaps = true })
  found.step_ms = stats.mean(stats.column(found.rows, "duration_us")) / 1000
  run.measured[number] = found
end

-- What the report and the profile say it is of.
local function describe(o, r)
  local run = r:query "select machine, date(started_at / 1000000000, 'unixepoch') as day from run where id = :run" [1]
  local machine = run.machine and lathe.json.decode(run.machine) or {}
  return ("%s on %s, %s processors, %s, %s"):format(o.truth ~= "" and o.truth or o.model, machine.cpu or "an unknown machine",
    machine.cpus or "?", o.threads == 0 and "a thread on each" or ("%d threads"):format(o.threads), run.day)
end

-- Medians of simulations that differ in the steps' noise alone: where a request just catches a step or just
-- misses it, all that follows is another, in real runs too.
local function predict(o, s, run, fit, number)
  local all, found = {}, {}
  for i = 1, SIMULATIONS do
    local r <close> = simulated_run(s, { scheduler = run.scheduler, batching = batching_of(o, run.batching),
                                         workload = load_of(o, run, run.rate),
                                         seed = o.seed + OTHER_SEED + i, label = run.title .. ", predicted" })
    all[i] = figures_of(r)
  end
  for name in pairs(all[1]) do found[name] = stats.median(stats.column(all, name)) end
  found.step_ms, run.off[number] = replayed(run.measured[number].rows, fit.coefficients)
  run.measured[number].rows, run.predicted[number] = nil, found
end

local function judge(run)
  local rows = {}
  for i, figure in ipairs(FIGURES) do
    local measured, predicted = stats.column(run.measured, figure.name), stats.column(run.predicted, figure.name)
    local ratios, allowed = {}, figure.allowed
    for k = 1, #measured do ratios[k] = predicted[k] / measured[k] end
    if figure.spread and #measured > 1 then
      allowed = math.max(allowed, (stats.max(measured) - stats.min(measured)) / stats.median(measured))
    end
    local off = stats.median(ratios) - 1
    rows[i] = { run = run.title, figure = figure.title, predicted = stats.median(predicted), measured = stats.median(measured),
                error = 100 * off, least = 100 * (stats.min(ratios) - 1), most = 100 * (stats.max(ratios) - 1),
                allowed = 100 * allowed, ok = math.abs(off) <= allowed and "yes" or "MISSED" }
  end
  return rows
end

local COLUMNS <const> = { "run", "figure", { "predicted", "predicted", "%.2f" }, { "measured", "measured", "%.2f" },
                          { "error", "error %", "%+.1f" },
                          { "least", "least", "%+.1f" }, { "most", "most", "%+.1f" }, { "allowed", "allowed %", "%.1f" }, { "ok", "ok?" } }

local function print_markdown(rows)
  local titles, rules = {}, {}
  for i, c in ipairs(COLUMNS) do
    titles[i], rules[i] = type(c) == "table" and c[2] or c, type(c) == "table" and c[3] and "---:" or "---"
  end
  print("| " .. table.concat(titles, " | ") .. " |\n| " .. table.concat(rules, " | ") .. " |")
  for _, row in ipairs(rows) do
    local cells = {}
    for i, c in ipairs(COLUMNS) do
      local value = row[type(c) == "table" and c[1] or c]
      cells[i] = type(c) == "table" and c[3] and c[3]:format(value) or value
    end
    print("| " .. table.concat(cells, " | ") .. " |")
  end
end

return {
  options = {
    model    = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    truth    = { default = "", help = "a cost profile: a simulation by it stands in for the model, on the virtual clock" },
    form     = { default = "tables", help = "of the profile that is fitted", choices = { "tables", "line" } },
    requests = { default = 48, help = "requests of each run", min = 20 },
    prompt   = { default = 80, help = "tokens of a prompt, the middle of a uniform distribution", unit = "tokens", min = 16, max = 256 },
    tokens   = { default = 20, help = "tokens of an answer, likewise", unit = "tokens", min = 4, max = 256 },
    places   = { default = 8, help = "most requests in a step", min = 2, max = 16 },
    budget   = { default = 64, help = "tokens of a step of chunked", unit = "tokens", min = 8 },
    effort   = { default = 1, help = "how often the calibrating run goes through its plan", min = 1, max = 20 },
    repeats  = { default = 1, help = "of each run, in turn", min = 1 },
    threads  = { default = 0, help = "of the model; 0: one a processor", min = 0, max = 64 },
    seed     = { default = 1, help = "of arrivals and lengths", min = 0 },
    report   = { default = false, help = "print Markdown" },
  },

  prepare = function(o)
    if o.truth ~= "" then return { model = lathe.model { "sim", profile = o.truth }, clock = "virtual" } end
    return { model = lathe.model { "llama", path = o.model }, clock = "real" }
  end,

  run = function(o, s)
    local drift = {}
    local found = { drift = drift, runs = {}, from = processor_time(), fits = {} }
    local second = warm_up(o, s)
    reference(o, s, drift)
    local prompt, output = lengths(o)
    local work = plan { second = second, places = o.places, prompt = prompt, output = output, batch_tokens = BATCH_TOKENS,
                        effort = o.effort, seed = o.seed }
    local info = s.model:info()
    local function calibration()
      local r <close> = real_run(o, s, { workload = work, batching = batching_of(o, "continuous"), label = "calibration" })
      local fit = calibrate.fit(calibrate.rows(lathe.sql(r.database), { r.id }, { skip = WARM_STEPS, gaps = true }), { form = o.form })
      found.profile, found.of = r.database:gsub("%.db$", "") .. ".profile", describe(o, r)
      calibrate.write(found.profile, fit, { found.of })
      s.simulator = lathe.model { "sim", profile = found.profile, kv_bytes_per_token = info.kv_bytes_per_token,
                                  context = info.context_tokens }
      found.fits[#found.fits + 1] = fit
      return fit
    end

    local most = {}
    for i, d in ipairs(RUNS) do
      most[d.batching] = most[d.batching] or saturation(o, s, d)
      found.runs[i] = { number = i, scheduler = d.scheduler, batching = d.batching, load = d.load, rate = d.load * most[d.batching],
                        title = ("%s %s %.2f"):format(d.scheduler, d.batching, d.load), measured = {}, predicted = {}, off = {} }
    end
    local middle = #RUNS // 2
    for number = 1, o.repeats do
      local fit
      for place = 0, #RUNS - 1 do
        if place == middle then fit = calibration() end
        reference(o, s, drift)
        measure(o, s, found.runs[(number - 1 + place) % #RUNS + 1], number)
      end
      reference(o, s, drift)
      for _, run in ipairs(found.runs) do predict(o, s, run, fit, number) end
    end
    found.to = processor_time()
    return found
  end,

  report = function(o, found, s)
    local rows, missed = {}, {}
    for _, run in ipairs(found.runs) do
      for _, row in ipairs(judge(run)) do
        rows[#rows + 1] = row
        if row.ok ~= "yes" then missed[#missed + 1] = ("%s of %s (%+.1f%%)"):format(row.figure, row.run, row.error) end
      end
    end
    local fit = found.fits[#found.fits]
    local all = fit.residuals[1]
    if o.report then print "\n# How well the simulator predicts" end
    print(("\n%s.\n%d requests a run, prompts of %d and answers of %d tokens (mean), %d places, %s;\n" ..
           "runs are scheduler, batching, share of that configuration's saturation:\n")
      :format(found.of, o.requests, o.prompt, o.tokens, o.places,
        o.repeats == 1 and "one repeat" or ("medians of %d repeats, each with a calibration of its own"):format(o.repeats)))
    if o.report then print_markdown(rows) else lathe.print(rows, COLUMNS) end
    local off = {}
    for i, run in ipairs(found.runs) do off[i] = ("%.1f%%"):format(100 * stats.median(run.off)) end
    print(("\nThe last calibration: one run of %d steps (%d disturbed ones left out), half within %.1f%%, nine in ten within %.1f%%.\n" ..
           "Single steps of the five runs were off by %s (medians)."):format(fit.steps, fit.left_out, 100 * all.median, 100 * all.p90,
             table.concat(off, ", ")))
    local low, high = stats.min(found.drift), stats.max(found.drift)
    print(("The reference batch, run %d times in between, took %+.1f%% to %+.1f%% of its first time: the machine's own drift."):format(
      #found.drift, 100 * low, 100 * high))
    if found.from then
      local others = 100 * (found.to.others - found.from.others) / math.max(1, found.to.all - found.from.all)
      print(("Others used %.1f%% of the processors meanwhile%s."):format(others, s.clock == "real" and others > QUIET
        and ": too much to judge the simulator by" or ""))
    end
    print(("\nWhat was found: %d of %d figures are within what is allowed%s."):format(#rows - #missed, #rows,
      #missed == 0 and "" or "; missed:\n  " .. table.concat(missed, "\n  ")))
    if o.repeats == 1 then print "A p99 of one run has no known spread: its 5% are stricter than those of repeats." end
    print("What would change this: work that the calibrating run had none of (longer contexts, more places, swapping), other\n" ..
          "tenants on the machine, and loads nearer to saturation, where a percent of the service time becomes tens of\n" ..
          "percents of the waiting.")
    print("The profile is in " .. found.profile .. ".")
  end,
}
