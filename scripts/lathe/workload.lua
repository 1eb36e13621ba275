-- SPDX-License-Identifier: MIT
-- Who arrives when, with what: workloads for lathe.run.
--
--   workload.poisson { rate = 2, requests = 500, seed = 1,
--                      prompt = workload.lognormal { median = 120, sigma = 1 }, output = workload.fixed(40) }
--   workload.constant { rate = … }            workload.gamma { rate = …, cv = 3 }
--   workload.burst { size = 8, every = 5 }    workload.mmpp { rates = { 1, 10 }, stays = { 60, 10 } }
--   workload.closed { concurrency = 4, think = 0.5 }
--   workload.replay { file = "trace.csv", speed = 2, requests = 100 }
--   workload.sessions { rate = 0.5, turns = workload.uniform { from = 2, to = 8 }, think = 10, … }, see lathe.sessions
--
-- `prompt`: a distribution of lengths (each request gets a stretch of text that long), one
-- text, an array of texts or of { messages = … } (taken in turn), see workload.prompts for a file.
-- `output`: a length or distribution: exactly that many tokens, whatever the model says.
-- Or `max_tokens`: at most that many. `chat = true` puts the model's template around texts.
-- `each = { … }`: fields of every request (priority, class, slo, sampling …).
-- `classes = { { name = "chat", tenant = "a", share = 3, prompt = …, output = …, slo = { ttft =, tpot = },
--    priority =, weight =, deadline_s =, predicted = }, … }`: each request is of one of them, drawn by
--    their shares; what a class doesn't say is as above.
-- `predicted`: what policies are told of an output's length: true (its length), { noise = 0.5 } (times
--    exp(N(0, 0.5²)), as wrong as real predictors are; bias = −0.7 beside it, or alone, makes that
--    exp(N(−0.7, 0.5²)): half of the length, typically), "mean" (its class's mean), or nothing.
--
-- Arrivals, prompts, outputs, classes and predictions draw from streams of their own: `seed` is
-- everybody's, or `seeds = { arrivals = …, prompts = …, outputs = …, classes = …, predictions = … }`
-- sets them apart. All is drawn in C (core/workload.h); what the table holds, see lathe.source.
local check    = require "lathe.check"
local core     = require "lathe.core"
local lengths  = require "lathe.lengths"
local source   = require "lathe.source"
local sessions = require "lathe.sessions"

local workload = {
  fixed = lengths.fixed, uniform = lengths.uniform, lognormal = lengths.lognormal,
  exponential = lengths.exponential, empirical = lengths.empirical, sessions = sessions,
}

-- ── files ──────────────────────────────────────────────────────────────────────────────

-- A file named by a script lies beside it, or in the current folder.
local function find(what, path)
  local beside = path:sub(1, 1) ~= "/" and (core.script:match "^(.*/)" or "./") .. path
  for _, candidate in ipairs { beside or path, path } do
    local file = io.open(candidate, "r")
    if file then return file, candidate end
  end
  core.fail(("%s: can't read %s: it lies neither beside the script nor in the current folder"):format(what, path))
end

-- Prompts of a text file: separated by empty lines; lines that start with # are comments.
function workload.prompts(path)
  if type(path) ~= "string" then core.fail("workload.prompts: takes a file's path, not " .. check.shown(path)) end
  local file = find("workload.prompts", path)
  local prompts, lines = {}, {}
  local function finish()
    if #lines > 0 then prompts[#prompts + 1] = table.concat(lines, "\n") end
    lines = {}
  end
  for line in file:lines() do
    if line:match "^%s*$" then finish() elseif line:sub(1, 1) ~= "#" then lines[#lines + 1] = line end
  end
  finish()
  file:close()
  if #prompts == 0 then core.fail(("workload.prompts: %s holds no prompts"):format(path)) end
  return prompts
end

-- ── open: arrivals don't wait for anybody ──────────────────────────────────────────────

-- A Poisson process: gaps are exponential with mean 1 / rate.
function workload.poisson(t)
  local what <const> = "workload.poisson"
  check.fields(what, t, source.with("rate"))
  local rate = check.number(what, t, "rate", 1e-9, 1e9)
  return source.build(what, t, { arrivals = "poisson", rate = rate }, { rate = rate }, { name = "poisson" })
end

-- One every 1 / rate seconds, the first at 0.
function workload.constant(t)
  local what <const> = "workload.constant"
  check.fields(what, t, source.with("rate"))
  local rate = check.number(what, t, "rate", 1e-9, 1e9)
  return source.build(what, t, { arrivals = "constant", rate = rate }, { rate = rate }, { name = "constant" })
end

-- A renewal process whose gaps are gamma distributed: mean 1 / rate, coefficient of
-- variation cv. cv = 1 is Poisson; larger is burstier.
function workload.gamma(t)
  local what <const> = "workload.gamma"
  check.fields(what, t, source.with("rate", "cv"))
  local rate, cv = check.number(what, t, "rate", 1e-9, 1e9), check.number(what, t, "cv", 0.01, 100)
  return source.build(what, t, { arrivals = "gamma", rate = rate, cv = cv }, { rate = rate, cv = cv }, { name = "gamma" })
end

-- `size` at once, every `every` seconds.
function workload.burst(t)
  local what <const> = "workload.burst"
  check.fields(what, t, source.with("size", "every"))
  local size, every = check.integer(what, t, "size", 1, 1 << 24), check.number(what, t, "every", 0, 1e9)
  return source.build(what, t, { arrivals = "burst", size = size, every = every }, { size = size, every = every }, { name = "burst" })
end

-- ── Markov-modulated: calm and busy times ──────────────────────────────────────────────

local function states_of(what, t)
  for _, name in ipairs { "rates", "stays" } do check.samples(("%s: \"%s\""):format(what, name), t[name], 1) end
  if #t.rates ~= #t.stays or #t.rates > 8 then
    core.fail(("%s: \"rates\" and \"stays\" should be as many, at most 8, not %d and %d"):format(what, #t.rates, #t.stays))
  end
  return table.move(t.rates, 1, #t.rates, 1, {}), table.move(t.stays, 1, #t.stays, 1, {})
end

-- A Poisson process whose rate is rates[1] for stays[1] seconds on average (exponential), then any
-- other state's, each alike. Real traffic has gaps hardly more variable than a Poisson process's,
-- but counts over a minute that are: Azure's conversations of 2023 have a CV of 1.09 and an index
-- of dispersion of 16. Gamma gaps can't have both; this has.
function workload.mmpp(t)
  local what <const> = "workload.mmpp"
  check.fields(what, t, source.with("rates", "stays"))
  local rates, stays = states_of(what, t)
  return source.build(what, t, { arrivals = "mmpp", rates = rates, stays = stays }, { rates = rates, stays = stays }, { name = "mmpp" })
end

-- The index of dispersion (variance / mean) of the number of arrivals in `window` seconds (none:
-- in the limit), of a process with two states: 1 is Poisson. Fischer and Meier-Hellstern (1993).
function workload.dispersion(t)
  local what <const> = "workload.dispersion"
  check.fields(what, t, { "rates", "stays", "window" })
  local rates, stays = states_of(what, t)
  if #rates ~= 2 then core.fail(("%s: the formula is for 2 states, not %d"):format(what, #rates)) end
  local window = check.number(what, t, "window", 0, math.huge, math.huge)
  local out1, out2 = 1 / stays[1], 1 / stays[2] -- a second, out of each state
  local mixing = out1 + out2
  local limit = 2 * out1 * out2 * (rates[1] - rates[2]) ^ 2 / (mixing ^ 2 * (rates[1] * out2 + rates[2] * out1))
  if window == math.huge then return 1 + limit end
  if window == 0 then return 1.0 end
  return 1 + limit * (1 - (1 - math.exp(-mixing * window)) / (mixing * window))
end

-- ── closed: the next comes when one has gone ───────────────────────────────────────────

-- `concurrency` users; each waits `think` seconds between an answer and its next request.
function workload.closed(t)
  local what <const> = "workload.closed"
  check.fields(what, t, source.with("concurrency", "think"))
  return source.build(what, t, { arrivals = "closed" }, {},
    { name = "closed", concurrency = check.integer(what, t, "concurrency", 1, 1 << 20), think = check.number(what, t, "think", 0, 1e9, 0) })
end

-- ── replay ─────────────────────────────────────────────────────────────────────────────

-- A CSV with columns arrived_at (s), num_prefill_tokens, num_decode_tokens, as the Azure
-- 2023 trace has them. `speed` 2: arrivals twice as quick; `lengths` 0.1: a tenth of the
-- tokens (at least 1); `from`: the first row; `window`: only what arrives within so many
-- seconds of it, by the file's time; `requests`: how many, read again from `from` on if that is
-- more than there are; `max_prompt`, `max_output`: cut. A class or the workload may have a
-- `prompt` or `output` of its own instead of the trace's.
function workload.replay(t)
  local what <const> = "workload.replay"
  check.fields(what, t, source.with("file", "speed", "lengths", "from", "window", "max_prompt", "max_output"))
  local path = check.text(what, t, "file")
  local file, found = find(what, path)
  file:close()
  local speed, scale = check.number(what, t, "speed", 1e-9, 1e9, 1), check.number(what, t, "lengths", 1e-9, 1e9, 1)
  local from = check.integer(what, t, "from", 1, (1 << 31) - 1, 1)
  local window = t.window and check.number(what, t, "window", 1e-9, 1e9)
  local max_prompt = check.integer(what, t, "max_prompt", 1, 1 << 24, 1 << 24)
  local max_output = check.integer(what, t, "max_output", 1, 1 << 24, 1 << 24)
  local rows = t.requests and check.integer(what, t, "requests", 1, (1 << 31) - 1)
  local trace = core.workload_trace(found, { from = from, rows = rows, window = window, lengths = scale })
  local own = {}
  for k, v in pairs(t) do own[k] = v end
  own.prompt = t.prompt or lengths.traced("num_prefill_tokens", max_prompt)
  own.output = t.output or lengths.traced("num_decode_tokens", max_output)
  own.requests = rows or trace:count()
  return source.build(what, own, { arrivals = "replay", trace = trace, speed = speed },
    { file = path, speed = speed, lengths = scale, from = from, window = window, requests = own.requests,
      max_prompt = t.max_prompt, max_output = t.max_output }, { name = "replay", source = found })
end

return workload
