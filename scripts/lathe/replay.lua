-- SPDX-License-Identifier: MIT
-- A run again, from its rows, and the first thing that went another way.
--
--   run.config       stages with their options, engine sizes, trace, how arrivals were made
--   request rows     who arrived when, how long, with which targets; prompts from token rows, or
--                    from the passage if they were drawn there (prompt_sha256 tells)
--   step_request     who was in which step with how many tokens: the decisions, which are compared
--   token            what came out: compared where the prompt is known; given again where it was given (score nll)
--
-- What can't be known is stood in for, and said: a prompt that wasn't recorded becomes another of
-- its length whose answer is forced to the length of before, so that decisions still compare.
--
--   local replay = require "lathe.replay"
--   replay.prepare("x.db", 3)        → what lathe.run takes, and notes
--   replay.difference(a, b, ids)     → the first difference in a sentence, or nil and what is equal
--   replay.main { database = "x.db", run = 3 }   what `lathe replay` does
local core    = require "lathe.core"
local lathe   = require "lathe"
local passage = require "lathe.passage"

local STAGES <const> = { "sampler", "kvcache", "scheduler", "batching", "bus", "router" }
local CHUNK_STEPS <const> = 1000

local replay = {}

local function fail(format, ...) error(format:format(...), 0) end

local function plural(n, what) return ("%d %s%s"):format(n, what, n == 1 and "" or "s") end

-- ── what the run was ───────────────────────────────────────────────────────────────────

local function find_run(db, path, id)
  local rows = db:query "select id, label, state, clock, seed, config, dropped_events from run order by id"
  if #rows == 0 then fail("%s holds no runs", path) end
  if not id and #rows > 1 then fail("%s holds %d runs: say which, %d to %d", path, #rows, rows[1].id, rows[#rows].id) end
  for _, row in ipairs(rows) do
    if row.id == (id or row.id) then
      if row.state == "running" then fail("run %d of %s is still under way", row.id, path) end
      if not row.config then fail("run %d of %s has no configuration: nothing says how to repeat it", row.id, path) end
      return row
    end
  end
  fail("%s has no run %d; its runs are %d to %d", path, id, rows[1].id, rows[#rows].id)
end

-- { name = "paged", options = { … }, unset = { … } } → { "paged", block_tokens = 16, … }: what nobody
-- had set stays unset, since a profile may decide it.
local function stage(recorded)
  local description, unset = { recorded.name }, {}
  for _, name in ipairs(recorded.unset or {}) do unset[name] = true end
  for name, value in pairs(recorded.options or {}) do
    if value ~= lathe.json.null and not unset[name] then description[name] = value end
  end
  return description
end

-- As the engine sums a prompt: its ids, 32 bits each.
local function sha256_of(tokens)
  local bytes = {}
  for i, token in ipairs(tokens) do bytes[i] = ("<i4"):pack(token) end
  return core.sha256(table.concat(bytes))
end

-- Puts `tokens`, or only their number where the run had no more (a simulation). Is it the same prompt?
local function put_prompt(request, db, run, row, index, model)
  if not row.prompt_sha256 then
    request.prompt_tokens = row.prompt_tokens
    return true
  end
  local rows = db:query("select token from token where run_id = ? and request_id = ? and kind = 'prompt' order by position", run.id, row.id)
  if #rows ~= row.prompt_tokens then
    request.tokens = passage.tokens(model, row.prompt_tokens, run.seed, index)
    return sha256_of(request.tokens) == row.prompt_sha256
  end
  request.tokens = {}
  for i, token in ipairs(rows) do request.tokens[i] = token.token end
  return true
end

local function last_token(db, run, row)
  local rows = db:query([[select token from token where run_id = ? and request_id = ? and kind = 'output'
      order by position desc limit 1]], run.id, row.id)
  return rows[1] and rows[1].token
end

-- The answer that was given to it (its score nll says so), or nil.
local function put_given(request, db, run, row)
  if #db:query("select 1 from score where run_id = ? and request_id = ? and name = 'nll'", run.id, row.id) == 0 then return end
  local rows = db:query("select token from token where run_id = ? and request_id = ? and kind = 'output' order by position", run.id, row.id)
  if #rows == 0 or #rows ~= row.output_tokens then return end
  request.forced = {}
  for i, token in ipairs(rows) do request.forced[i] = token.token end
  return request.forced
end

-- How its answer is to end where it ended before.
local function put_length(request, row, known, last)
  local ended = row.finish_reason
  local forced = not known or not row.max_tokens or ended == "abort" or ended == "error"
  if forced then
    request.output_tokens = math.max(row.output_tokens, 1)
    return
  end
  request.max_tokens, request.ignore_eos = math.max(row.max_tokens, 1), row.ignore_eos == 1
  if last then request.stop_ids = { last } end
end

local function put_sampling(request, row, sampler)
  if not row.sampling then return end
  local sampling = {}
  for name, value in pairs(lathe.json.decode(row.sampling)) do
    if name == "seed" or (sampler.options or {})[name] ~= nil then sampling[name] = value end
  end
  request.sampling = sampling
end

local function request_of(row, closed)
  local request = {
    class = row.class, tenant = row.tenant, priority = row.priority, session = row.session, turn = row.turn,
    predicted = row.predicted_tokens, weight = row.weight and row.weight / 1000, correlation_id = row.correlation_id,
  }
  if row.slo_ttft_ns or row.slo_tpot_ns then
    request.slo = { ttft = (row.slo_ttft_ns or 0) / 1e9, tpot = (row.slo_tpot_ns or 0) / 1e9 }
  end
  if not closed then
    request.at = row.planned_ns / 1e9
    if row.deadline_ns then request.deadline_s = math.max(row.deadline_ns - row.planned_ns, 1) / 1e9 end
  end
  return request
end

-- Of a request whose prefill was kept apart (core/simulate_split.h): is this row its second half?
local function is_second_half(row, config)
  return config.disaggregate and (row.replica or 0) >= config.disaggregate.prefill
end

-- The first half's row, with the second's put in.
local function join_halves(first, second)
  first.output_tokens, first.max_tokens = first.output_tokens + second.output_tokens, first.max_tokens + second.max_tokens
  first.predicted_tokens = second.predicted_tokens and second.predicted_tokens + 1
  first.slo_tpot_ns, first.finish_reason = second.slo_tpot_ns, second.finish_reason
end

-- Requests in the order of before; `ids` maps the replay's numbers to theirs.
local function requests_of(db, run, config, model, closed)
  local requests, ids, known, stood_in, cut, halves = {}, {}, {}, 0, 0, {}
  while true do -- a chunk at a time: rows are larger than requests
    local rows = db:query("select * from request where run_id = ? and prompt_tokens > 0 and id > ? order by id limit 5000",
      run.id, ids[#ids] or 0)
    if #rows == 0 then break end
    for _, row in ipairs(rows) do
      local half = is_second_half(row, config) and halves[row.correlation_id]
      local id = row.id
      if half then
        join_halves(half.row, row)
        known[row.id], row = true, half.row
      end
      local request, index = request_of(row, closed), half and half.index or #requests + 1
      if config.disaggregate then halves[row.correlation_id] = { row = row, index = index } end
      known[row.id] = put_prompt(request, db, run, row, index, model)
      if not known[row.id] then stood_in = stood_in + 1 end
      if row.finish_reason == "abort" or row.finish_reason == "error" then cut = cut + 1 end
      if not put_given(request, db, run, row) then
        put_length(request, row, known[row.id], row.finish_reason == "stop" and last_token(db, run, row))
      end
      put_sampling(request, row, config.sampler)
      requests[index], ids[#ids + 1] = request, id
    end
  end
  return requests, ids, known, stood_in, cut
end

local function notes_of(db, run, closed, stood_in, cut)
  local notes = {}
  local function note(format, ...) notes[#notes + 1] = format:format(...) end
  if stood_in > 0 then
    note("%s not recorded: others of their length stand in, and tokens of those can't be compared (trace = { tokens = \"all\" } "
      .. "keeps prompts)", plural(stood_in, "prompt") .. (stood_in == 1 and " was" or " were"))
  end
  if cut > 0 then note("%s ended early by cancelling or failing: here after as many tokens", plural(cut, "request")) end
  local changes = db:query([[select count(*) as n from service_event where run_id = ?
      and what in ('swapped', 'scaled', 'worker_died', 'worker_stuck')]], run.id)[1].n
  if changes > 0 then note("stages were swapped, scaled or lost %s while it ran: here they stay as they began",
    changes == 1 and "once" or changes .. " times") end
  local deadlines = closed and db:query("select count(deadline_ns) as n from request where run_id = ?", run.id)[1].n or 0
  if deadlines > 0 then note("%s of a closed loop, which count from arrivals, are left out", plural(deadlines, "deadline")) end
  if run.dropped_events > 0 then note("%s of it had been dropped", plural(run.dropped_events, "row")) end
  if run.state ~= "done" then note("the run was %s: what it left is repeated", run.state) end
  return notes
end

-- Several models beside each other, opened again.
local function models_of(config)
  if not config.models then return end
  local models = {}
  for i, one in ipairs(config.models) do
    local model = stage { name = one.name, options = lathe.json.decode(one.options), unset = one.unset }
    model.tokenizer = stage(config.tokenizer)
    models[i] = { model = lathe.model(model), replicas = one.replicas, weight = one.weight / 1000 }
  end
  return models
end

-- As lathe.run takes them; of many values the configuration has the sum alone.
local function interventions_of(config, run)
  local list = config.interventions and {}
  for i, one in ipairs(config.interventions or {}) do
    if one.values and one.values.sha256 then
      fail("run %d: intervention %d (%s) has %d values, of which the database keeps the sum alone: run its script again",
        run.id, i, one.kind, one.values.count)
    end
    list[i] = { one.kind }
    for name, value in pairs(one) do
      if name ~= "kind" then list[i][name] = value end
    end
  end
  return list
end

-- What lathe.run takes, and how to compare: { description, run, ids, known, notes }.
function replay.prepare(path, id, output)
  local db <close> = lathe.sql(path)
  local run = find_run(db, path, id)
  local config = lathe.json.decode(run.config)
  local model = stage(config.model)
  model.tokenizer = stage(config.tokenizer)
  model = lathe.model(model)
  local closed = (config.workload.concurrency or 0) > 0
  local requests, ids, known, stood_in, cut = requests_of(db, run, config, model, closed)
  if #requests == 0 then fail("run %d of %s has no request rows, so there is nothing to repeat", run.id, path) end
  local description = {
    model = not config.models and model or nil, models = models_of(config),
    seed = run.seed, database = output, label = ("%s (run %d again)"):format(run.label or "run", run.id),
    engine = config.engine, workers = config.workers, trace = config.trace, faults = config.faults, warmup = config.warmup,
    disaggregate = config.disaggregate, interventions = interventions_of(config, run), clock = run.clock ~= "real" and run.clock or nil,
    workload = { name = "replay", requests = requests, parameters = { database = path, run = run.id },
                 concurrency = closed and config.workload.concurrency or nil, think = closed and config.workload.think or nil },
  }
  for _, kind in ipairs(STAGES) do description[kind] = config[kind] and stage(config[kind]) end
  local timed = run.clock == "real" and (not closed and requests[#requests].at > 0 or (config.workload.think or 0) > 0)
  return { description = description, run = run, path = path, ids = ids, known = known, timed = timed, exact = run.clock == "virtual",
           notes = notes_of(db, run, closed, stood_in, cut) }
end

-- ── what was another way ───────────────────────────────────────────────────────────────

-- `exact`: times are told by the virtual clock, so they compare too.
local function step_difference(was, now, ids, exact)
  if not was then
    return now.step_id, ("request %d was in it with %s, and wasn't before"):format(ids[now.request_id], plural(now.tokens, "token"))
  elseif not now then
    return was.step_id, ("request %d wasn't in it, and was before with %s"):format(was.request_id, plural(was.tokens, "token"))
  end
  local request = ids[now.request_id]
  if was.step_id ~= now.step_id then
    if was.step_id < now.step_id then return step_difference(was, nil, ids) end
    return step_difference(nil, now, ids)
  end
  if was.request_id ~= request then
    if was.request_id < request then return step_difference(was, nil, ids) end
    return step_difference(nil, now, ids)
  end
  if was.phase ~= now.phase then
    return now.step_id, ("request %d was in %s, was in %s"):format(request, now.phase, was.phase)
  elseif was.tokens ~= now.tokens then
    return now.step_id, ("request %d got %s, was %d"):format(request, plural(now.tokens, "token"), was.tokens)
  elseif was.first_position ~= now.first_position then
    return now.step_id, ("request %d began at position %d, was %d"):format(request, now.first_position, was.first_position)
  elseif was.replica ~= now.replica then
    return now.step_id, ("it ran on replica %d, was %d"):format(now.replica, was.replica)
  elseif exact and was.start_ns ~= now.start_ns then
    return now.step_id, ("it began at %.6f s, was %.6f s"):format(now.start_ns / 1e9, was.start_ns / 1e9)
  end
end

-- rows_of(db, run, from, to): both sides' rows in the same order; differs(was, now) → step, sentence.
local function walk(a, b, sql, last, differs)
  local count = 0
  for from = 1, last, CHUNK_STEPS do
    local was, now = a.db:query(sql, a.run, from, from + CHUNK_STEPS), b.db:query(sql, b.run, from, from + CHUNK_STEPS)
    for i = 1, math.max(#was, #now) do
      local step, sentence = differs(was[i], now[i])
      if step then return count, step, sentence end
      count = count + 1
    end
  end
  return count
end

local function last_step(side) return side.db:query("select coalesce(max(id), 0) as n from step where run_id = ?", side.run)[1].n end

local function request_difference(a, b, ids, known, exact)
  local sql <const> = "select id, finish_reason, first_token_ns, finish_ns from request where run_id = ? order by id"
  local before = {}
  for _, row in ipairs(a.db:query(sql, a.run)) do before[row.id] = row end
  for _, row in ipairs(b.db:query(sql, b.run)) do
    local was = before[ids[row.id]]
    local cut = not was or not known[was.id] or was.finish_reason == "abort" or was.finish_reason == "error"
    if not cut and was.finish_reason ~= row.finish_reason then
      return ("request %d ended with %s, was %s"):format(was.id, row.finish_reason or "nothing", was.finish_reason or "nothing")
    end
    for _, name in ipairs(exact and not cut and { "first_token_ns", "finish_ns" } or {}) do
      if was[name] ~= row[name] then
        return ("request %d: %s is %s, was %s"):format(was.id, name, row[name] or "nothing", was[name] or "nothing")
      end
    end
  end
end

-- a (before) and b (now) are { db = …, run = … }; ids: now's request numbers to before's; known: by
-- before's numbers, whose tokens compare; exact: times compare too. The first difference in a sentence and the last equal
-- step, or nil, and how many steps and tokens are equal.
function replay.difference(a, b, ids, known, exact)
  local last = math.max(last_step(a), last_step(b))
  local _, step, sentence = walk(a, b, [[select r.step_id, r.request_id, r.phase, r.first_position, r.tokens, s.replica, s.start_ns
      from step_request r left join step s on s.run_id = r.run_id and s.id = r.step_id
      where r.run_id = ? and r.step_id >= ? and r.step_id < ? order by r.step_id, r.request_id]], last,
    function(was, now) return step_difference(was, now, ids, exact) end)
  local tokens, token_step, token_sentence = walk(a, b, [[select step_id, request_id, position, token from token
      where run_id = ? and step_id >= ? and step_id < ? and kind = 'output' order by step_id, request_id, position]],
    step and step - 1 or last, function(was, now)
      if was and now and was.request_id == ids[now.request_id] and was.position == now.position and known[was.request_id]
        and was.token ~= now.token then
        return now.step_id, ("request %d got token %d at position %d, was %d"):format(was.request_id, now.token, now.position, was.token)
      end
    end)
  if token_step and (not step or token_step < step) then step, sentence = token_step, token_sentence end
  if step then return ("step %d: %s"):format(step, sentence), step - 1 end
  sentence = request_difference(a, b, ids, known, exact)
  if sentence then return sentence, last end
  return nil, last, tokens
end

-- Files that are not those of before: plugins and artifacts whose SHA-256 changed.
function replay.changes(a, b)
  local changed = {}
  for _, sql in ipairs { "select kind, name, sha256 from plugin where run_id = ?",
                         "select '' as kind, 'the model''s file' as name, sha256 from artifact where run_id = ? and kind = 'model'" } do
    local before = {}
    local function name_of(row) return row.kind == "" and row.name or row.kind .. "/" .. row.name end
    for _, row in ipairs(a.db:query(sql, a.run)) do before[name_of(row)] = row.sha256 end
    for _, row in ipairs(b.db:query(sql, b.run)) do
      local name = name_of(row)
      if before[name] and row.sha256 and before[name] ~= row.sha256 then changed[#changed + 1] = name end
    end
  end
  table.sort(changed)
  return changed
end

-- ── lathe replay ───────────────────────────────────────────────────────────────────────

function replay.main(wish)
  local plan = replay.prepare(wish.database, wish.run, wish.output)
  local r <close> = lathe.run(plan.description)
  print(("run %d of %s again: run %d of %s, %s"):format(plan.run.id, plan.path, r.id, r.database,
    plural(#plan.description.workload.requests, "request")))
  for _, note in ipairs(plan.notes) do print("note: " .. note) end
  local before <close> = lathe.sql(plan.path)
  local now <close> = lathe.sql(r.database)
  local a, b = { db = before, run = plan.run.id }, { db = now, run = r.id }
  for _, name in ipairs(replay.changes(a, b)) do print(("warning: %s is not what it was (its SHA-256 changed)"):format(name)) end
  local sentence, steps, tokens = replay.difference(a, b, plan.ids, plan.known, plan.exact)
  if sentence and plan.timed then
    fail("%s (%s equal before; arrivals met a real clock, which can't be repeated exactly)", sentence, plural(steps, "step"))
  elseif sentence then
    fail("%s (%s equal before)", sentence, plural(steps, "step"))
  end
  print(("%s and %s are equal%s"):format(plural(steps, "step"), plural(tokens, "token"),
    plan.exact and ", and when each of " .. plural(#plan.description.workload.requests, "request") .. " was answered" or ""))
end

return replay
