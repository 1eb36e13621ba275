-- How long does a step take, as a function of what is in it?
-- SPDX-License-Identifier: MIT
--
-- Runs a designed set of batches on the model (prompts from 8 tokens to a thousand, whole and in
-- chunks, 1 … 32 at once, two batchings), or takes an existing run (--db x.db --run N, also one of
-- `lathe import`), and fits
--
--   duration = step + prefill · tokens + prefill_context · tokens × past + decode · requests
--              + decode_context · their contexts + padding · padding tokens
--
-- to the rows of table `step`. With --form tables the fixed part and the row's share become tables by the
-- step's rows and outputs (lathe.calibrate_tables), which a processor's kernels need. The figures land in
-- a cost profile (--profile), which a simulation of this model on this machine reads; what the fit leaves
-- unexplained is its noise.
local lathe     = require "lathe"
local calibrate = require "lathe.calibrate"
local workload  = require "lathe.workload"

local UNITS <const> = {
  step_us = "µs a step", floor_us = "µs a step at least", prefill_us = "µs a token", prefill_context_ns = "ns a token and past token",
  decode_us = "µs a request", decode_context_ns = "ns a token of context", padding_us = "µs a token", noise = "sigma of the logarithm",
}

-- { label, batching, chunk, requests }: enough of each kind of step that no figure leans on another's.
local function design(effort, context)
  local runs = {}
  local function add(label, chunk, batching, requests, concurrency)
    for _, r in ipairs(requests) do
      r.output_tokens = math.min(r.output_tokens, math.max(1, context - r.prompt_tokens - 1))
    end
    runs[#runs + 1] = { label = label, batching = batching, engine = { batch_tokens = chunk, max_requests = 64 },
                        workload = { name = label, requests = requests, concurrency = concurrency } }
  end
  local function many(n, prompt, output)
    local list = {}
    for i = 1, n do list[i] = { prompt_tokens = math.min(prompt + 3 * (i % 5), context // 2), output_tokens = output } end
    return list
  end
  for _, length in ipairs { 8, 24, 64, 128, 256, 512 } do -- prefill alone, one after another
    add("prompts of " .. length, 512, "continuous", many(math.max(2, math.floor(effort * 1000 / (length + 120))), length, 1), 1)
  end
  for _, chunk in ipairs { 32, 64, 128 } do -- in chunks, so that rows have a past
    add("chunks of " .. chunk, chunk, "continuous", many(math.ceil(effort * 2), 1000, 1), 1)
  end
  for _, n in ipairs { 1, 2, 4, 8, 16, 32 } do -- decode, short and long contexts
    add(n .. " decoding, short", 512, "continuous", many(n, 8, math.ceil(effort * 24)))
    add(n .. " decoding, long", 512, "continuous", many(n, math.max(16, 640 // n + 100), math.ceil(effort * 16)))
  end
  local function drawn(n, median, seed)
    return workload.closed { concurrency = 1, requests = n, seed = seed, output = workload.uniform { from = 4, to = 30 },
      prompt = workload.lognormal { median = median, sigma = 0.8, max = context // 2 } }.requests
  end
  add("mixed", 128, "continuous", drawn(math.ceil(effort * 20), 90, 1), 6)
  add("mixed, static", 512, "static", drawn(math.ceil(effort * 16), 60, 2), 8)
  return runs
end

local function measure(o, model)
  lathe.run { model = model, workload = { { prompt_tokens = 64, output_tokens = 8 } }, trace = false, label = "warm-up" }
  local ids, database = {}, nil
  for _, d in ipairs(design(o.effort, model:info().context_tokens)) do
    d.model, d.trace = model, { attention = false }
    local r <close> = lathe.run(d)
    ids[#ids + 1], database = r.id, r.database
  end
  return database, ids
end

local function describe(db, ids, fit)
  local id = ids and ids[1] or db:query "select min(id) as id from run" [1].id
  local run = db:query("select machine, clock, label, date(started_at / 1000000000, 'unixepoch') as day from run where id = ?", id)[1]
  local machine = run.machine and lathe.json.decode(run.machine) or {}
  local model = db:query("select name, sha256 from artifact where run_id = ? and kind in ('model', 'trace') order by kind limit 1", id)[1]
  return {
    ("machine: %s, %s"):format(machine.cpu or "unknown", machine.cpus and machine.cpus .. " processors" or "of unknown size"),
    ("model: %s"):format(model and model.name .. (model.sha256 and " (SHA-256 " .. model.sha256 .. ")" or "") or "unknown"),
    ("date: %s, %d steps, %s weights"):format(run.day, fit.steps, fit.weights),
  }
end

local function shown(us) return us < 1000 and ("%.3g µs"):format(us) or ("%.3g ms"):format(us / 1000) end

local function print_fit(fit)
  local rows = {}
  for i, name in ipairs(calibrate.names) do
    local interval = fit.intervals[name]
    rows[i] = { name = name, value = ("%.4g"):format(name == "noise" and fit.noise or fit.coefficients[name]), unit = UNITS[name],
                interval = interval and ("%.4g to %.4g"):format(interval.low, interval.high) or "",
                note = fit.seen[name] == false and "none of it was in these steps" or "" }
  end
  lathe.print(rows, { { "name", "coefficient" }, "value", { "interval", "95% interval" }, "unit", { "note", "" } })
  print()
  rows = {}
  for i, r in ipairs(fit.residuals) do
    rows[i] = { kind = r.kind, steps = r.steps, us = r.median_us / 1000, median = 100 * r.median, p90 = 100 * r.p90, r2 = r.r2 }
  end
  lathe.print(rows, { { "kind", "kind of step" }, "steps", { "us", "median ms", "%.2f" }, { "median", "error median %", "%.1f" },
                      { "p90", "p90 %", "%.1f" }, { "r2", "R²", "%.4f" } })
end

return {
  options = {
    model   = { default = "smollm2-135m", help = "a GGUF file or short name, or a plugin such as tiny" },
    db      = { default = "", help = "fit steps of this database instead of running the model" },
    run     = { default = 0, help = "of that run; 0: of all runs in it", min = 0 },
    effort  = { default = 1.0, help = "how much to run: 1 takes about a minute on two cores", min = 0.05, max = 100 },
    weights = { default = "relative", help = "relative or absolute errors are squared", choices = { "relative", "absolute" } },
    form    = { default = "line", help = "straight lines, or tables by rows and outputs", choices = { "line", "tables" } },
    floor   = { default = false, help = "look for a least duration, floor_us, too" },
    profile = { default = "", help = "where the cost profile is written; unless said, beside the database" },
  },
  prepare = function(o)
    if o.db ~= "" then return {} end
    return { model = o.model == "tiny" and lathe.model "tiny" or lathe.model { "llama", path = o.model } }
  end,
  run = function(o, state)
    local database, ids = o.db, o.run > 0 and { o.run } or nil
    if state.model then database, ids = measure(o, state.model) end
    local db = lathe.sql(database)
    local rows = calibrate.rows(db, ids)
    if #rows == 0 then error(("%s has no steps%s"):format(database, ids and state.model == nil and " of run " .. ids[1] or ""), 0) end
    local fit = calibrate.fit(rows, { weights = o.weights, form = o.form, floor = o.floor })
    return { fit = fit, comments = describe(db, ids, fit), database = database }
  end,
  report = function(o, result)
    local fit = result.fit
    local c = fit.coefficients
    print_fit(fit)
    print "\nWhat was found:"
    if fit.form == "tables" then
      local least, most = c.rows_us[1], c.rows_us[#c.rows_us]
      print(("Without attention and outputs, rows: %d take %s, %d take %s; %d steps that something disturbed were left out.")
        :format(least.at, shown(least.us), most.at, shown(most.us), fit.left_out))
    else
      print(("A step takes %s, %s more for each prefilled token and %s for each decoding request."):format(shown(c.step_us),
        shown(c.prefill_us), shown(c.decode_us)))
    end
    print(("Half of all steps are within %.1f%% of that, nine in ten within %.1f%%."):format(100 * fit.residuals[1].median,
      100 * fit.residuals[1].p90))
    local path = o.profile ~= "" and o.profile or result.database:gsub("%.db$", "") .. ".profile"
    calibrate.write(path, fit, result.comments)
    print("The profile is in " .. path .. ".")
  end,
}
