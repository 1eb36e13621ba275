-- SPDX-License-Identifier: MIT
-- Who arrives when, with what: workloads for lathe.run.
--
--   workload.poisson { rate = 2, requests = 500, seed = 1,
--                      prompt = workload.lognormal { median = 120, sigma = 1 }, output = workload.fixed(40) }
--   workload.constant { rate = … }            workload.gamma { rate = …, cv = 3 }
--   workload.burst { size = 8, every = 5 }    workload.closed { concurrency = 4, think = 0.5 }
--   workload.replay { file = "trace.csv", speed = 2, requests = 100 }
--
-- `prompt`: a distribution of lengths (each request gets a stretch of text that long), one
-- text, an array of texts or of { messages = … } (taken in turn), see workload.prompts for a file.
-- `output`: a length or distribution: exactly that many tokens, whatever the model says.
-- Or `max_tokens`: at most that many. `chat = true` puts the model's template around texts.
-- `each = { … }`: fields of every request (priority, class, slo, sampling …).
-- `predicted = true`: policies see the output's length.
--
-- Arrivals, prompts and outputs draw from streams of their own: `seed` is all three's, or
-- `seeds = { arrivals = …, prompts = …, outputs = … }` sets them apart.
local check   = require "lathe.check"
local core    = require "lathe.core"
local lengths = require "lathe.lengths"
local random  = require "lathe.random"

local workload = {
  fixed = lengths.fixed, uniform = lengths.uniform, lognormal = lengths.lognormal,
  exponential = lengths.exponential, empirical = lengths.empirical,
}

local STREAM_PROMPTS <const>, STREAM_OUTPUTS <const> = 1, 2
local COMMON <const> = { "requests", "seed", "seeds", "prompt", "output", "max_tokens", "chat", "each", "predicted", "ignore_eos" }

local function with(...)
  local names = { ... }
  for _, name in ipairs(COMMON) do names[#names + 1] = name end
  return names
end

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

-- ── what every workload shares ─────────────────────────────────────────────────────────

local function seeds_of(what, t)
  local seed = check.integer(what, t, "seed", 0, math.maxinteger, 1)
  local own = t.seeds or {}
  check.fields(what .. ": seeds", own, { "arrivals", "prompts", "outputs" })
  local result = {}
  for _, name in ipairs { "arrivals", "prompts", "outputs" } do
    result[name] = check.integer(what .. ": seeds", own, name, 0, math.maxinteger, seed)
  end
  return result
end

local function put_prompt(what, request, source, seeds, i, chat)
  if lengths.is(source) then
    request.prompt_tokens = source:draw(seeds.prompts, STREAM_PROMPTS, i)
    return
  end
  local item = source
  if type(source) == "table" then item = source[(i - 1) % #source + 1] end
  if type(item) == "table" then
    for k, v in pairs(item) do request[k] = v end
  elseif type(item) ~= "string" then
    core.fail(("%s: \"prompt\" should be texts, messages or a distribution of lengths, not %s"):format(what, check.shown(item)))
  elseif chat then
    request.messages = { { role = "user", content = item } }
  else
    request.prompt = item
  end
end

-- arrival(i, seed) → seconds, or nil for closed loops.
local function build(what, t, name, arrival, extra)
  local default = type(t.prompt) == "table" and not lengths.is(t.prompt) and #t.prompt or nil
  local count = check.integer(what, t, "requests", 1, 1 << 24, default)
  local seeds = seeds_of(what, t)
  local output = type(t.output) == "number" and lengths.fixed(t.output) or t.output
  if output and not lengths.is(output) then
    core.fail(("%s: \"output\" should be a number of tokens or a distribution of them, not %s"):format(what, check.shown(output)))
  end
  if t.prompt == nil or (type(t.prompt) == "table" and not lengths.is(t.prompt) and #t.prompt == 0) then
    core.fail(what .. ": \"prompt\" should be texts, messages or a distribution of lengths")
  end
  local requests = {}
  for i = 1, count do
    local request = {}
    for k, v in pairs(t.each or {}) do request[k] = v end
    request.at = arrival and arrival(i, seeds.arrivals)
    put_prompt(what, request, t.prompt, seeds, i, t.chat)
    if output then
      request.output_tokens = output:draw(seeds.outputs, STREAM_OUTPUTS, i)
      if t.predicted then request.predicted = request.output_tokens end
    end
    request.max_tokens = request.max_tokens or t.max_tokens
    if t.ignore_eos then request.ignore_eos = true end
    requests[i] = request
  end
  local parameters = { seeds = seeds, output = output, max_tokens = t.max_tokens, chat = t.chat, predicted = t.predicted }
  parameters.prompt = lengths.is(t.prompt) and t.prompt or { kind = "given", prompts = type(t.prompt) == "table" and #t.prompt or 1 }
  local result = { name = name, parameters = parameters, requests = requests }
  for k, v in pairs(extra or {}) do
    if k == "concurrency" or k == "think" or k == "source" then result[k] = v else parameters[k] = v end
  end
  return result
end

-- Gaps add up to times: gap(i, seed) → seconds.
local function adding(gap)
  local now = 0
  return function(i, seed)
    now = now + gap(i, seed)
    return now
  end
end

-- ── open: arrivals don't wait for anybody ──────────────────────────────────────────────

-- A Poisson process: gaps are exponential with mean 1 / rate.
function workload.poisson(t)
  local what <const> = "workload.poisson"
  check.fields(what, t, with("rate"))
  local rate = check.number(what, t, "rate", 1e-9, 1e9)
  return build(what, t, "poisson", adding(function(i, seed)
    return random.exponential(seed, random.ARRIVALS, 0, i) / rate
  end), { rate = rate })
end

-- One every 1 / rate seconds, the first at 0.
function workload.constant(t)
  local what <const> = "workload.constant"
  check.fields(what, t, with("rate"))
  local rate = check.number(what, t, "rate", 1e-9, 1e9)
  return build(what, t, "constant", function(i) return (i - 1) / rate end, { rate = rate })
end

-- A renewal process whose gaps are gamma distributed: mean 1 / rate, coefficient of
-- variation cv. cv = 1 is Poisson; larger is burstier.
function workload.gamma(t)
  local what <const> = "workload.gamma"
  check.fields(what, t, with("rate", "cv"))
  local rate, cv = check.number(what, t, "rate", 1e-9, 1e9), check.number(what, t, "cv", 0.01, 100)
  local shape = 1 / (cv * cv)
  return build(what, t, "gamma", adding(function(i, seed)
    return random.gamma(shape, seed, random.ARRIVALS, 0, i) / (shape * rate)
  end), { rate = rate, cv = cv })
end

-- `size` at once, every `every` seconds.
function workload.burst(t)
  local what <const> = "workload.burst"
  check.fields(what, t, with("size", "every"))
  local size, every = check.integer(what, t, "size", 1, 1 << 24), check.number(what, t, "every", 0, 1e9)
  return build(what, t, "burst", function(i) return (i - 1) // size * every end, { size = size, every = every })
end

-- ── closed: the next comes when one has gone ───────────────────────────────────────────

-- `concurrency` users; each waits `think` seconds between an answer and its next request.
function workload.closed(t)
  local what <const> = "workload.closed"
  check.fields(what, t, with("concurrency", "think"))
  return build(what, t, "closed", nil, { concurrency = check.integer(what, t, "concurrency", 1, 1 << 20),
                                         think = check.number(what, t, "think", 0, 1e9, 0) })
end

-- ── replay ─────────────────────────────────────────────────────────────────────────────

local function read_rows(what, path)
  local file, found = find(what, path)
  local header = file:read "l"
  local place, number = {}, 0
  for name in ((header or ""):gsub("\r$", "") .. ","):gmatch "([^,]*)," do
    number = number + 1
    place[name] = number
  end
  local columns = { "arrived_at", "num_prefill_tokens", "num_decode_tokens" }
  for _, name in ipairs(columns) do
    if not place[name] then core.fail(("%s: %s has no column %s in its first line"):format(what, path, name)) end
  end
  local rows, line_number = {}, 1
  for line in file:lines() do
    line_number = line_number + 1
    if not line:match "^%s*$" then
      local cells = {}
      for text in (line:gsub("\r$", "") .. ","):gmatch "([^,]*)," do cells[#cells + 1] = text end
      local row = {}
      for i, name in ipairs(columns) do
        row[i] = tonumber(cells[place[name]])
        if not row[i] or row[i] ~= row[i] or row[i] < 0 then
          core.fail(("%s: %s:%d: %s should be a number, not \"%s\""):format(what, path, line_number, name, cells[place[name]] or ""))
        end
      end
      rows[#rows + 1] = row
    end
  end
  file:close()
  if #rows == 0 then core.fail(("%s: %s has no rows"):format(what, path)) end
  return rows, found
end

-- A CSV with columns arrived_at (s), num_prefill_tokens, num_decode_tokens, as the Azure
-- 2023 trace has them. `speed` 2: arrivals twice as quick; `lengths` 0.1: a tenth of the
-- tokens (at least 1); `from`, `requests`: which rows; `max_prompt`, `max_output`: cut.
function workload.replay(t)
  local what <const> = "workload.replay"
  check.fields(what, t, { "file", "speed", "lengths", "from", "requests", "max_prompt", "max_output", "each", "predicted" })
  local path = check.text(what, t, "file")
  local rows, found = read_rows(what, path)
  local speed, scale = check.number(what, t, "speed", 1e-9, 1e9, 1), check.number(what, t, "lengths", 1e-9, 1e9, 1)
  local from = check.integer(what, t, "from", 1, #rows, 1)
  local count = check.integer(what, t, "requests", 1, #rows - from + 1, #rows - from + 1)
  local max_prompt = check.integer(what, t, "max_prompt", 1, 1 << 24, 1 << 24)
  local max_output = check.integer(what, t, "max_output", 1, 1 << 24, 1 << 24)
  local function tokens(n, max) return math.tointeger(math.max(1, math.min(max, math.floor(n * scale + 0.5)))) end
  local requests, zero = {}, rows[from][1]
  for i = 1, count do
    local row, request = rows[from + i - 1], {}
    for k, v in pairs(t.each or {}) do request[k] = v end
    request.at = math.max(0, row[1] - zero) / speed
    request.prompt_tokens = tokens(row[2], max_prompt)
    request.output_tokens = tokens(row[3], max_output)
    if t.predicted then request.predicted = request.output_tokens end
    requests[i] = request
  end
  return { name = "replay", source = found, requests = requests,
           parameters = { file = path, speed = speed, lengths = scale, from = from, requests = count,
                          max_prompt = t.max_prompt, max_output = t.max_output } }
end

return workload
