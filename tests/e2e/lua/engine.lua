-- lathe.engine: requests posted and awaited, on every bus, with replicas that come and go.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local model <close> = lathe.model { "tiny", context = 256 }
local PROMPTS <const> = { "one", "two and a half", "three", "the fourth of them", "five" }

local function ids(r) return table.concat(r.tokens, " ") end

-- the reference: lathe.run over the direct bus
local workload, expected = {}, {}
for i, prompt in ipairs(PROMPTS) do workload[i] = { prompt = prompt, output_tokens = 12 } end
for i, o in ipairs(lathe.run { model = model, workload = workload, trace = false }:outputs()) do expected[i] = ids(o) end

for _, bus in ipairs { "direct", "sync", "async", "shm" } do
  -- lathe.run over it, one replica and two, gives the same, token for token
  for replicas = 1, 2 do
    local r <close> = lathe.run { model = model, bus = bus, workload = workload, workers = { model = replicas, tokenizer = 2 },
                                  trace = { hops = true } }
    for i, o in ipairs(r:outputs()) do t.equal(ids(o), expected[i], bus .. " run") end
    local hops = r:query "select count(*) as n, min(ended_ns - started_ns) as least, sum(status <> 0) as bad from hop where run_id = :run"[1]
    if bus == "direct" then
      t.equal(hops.n, 0, "direct has no hops")
    else
      t.truth(hops.n > 12 and hops.least >= 0 and hops.bad == 0, bus .. " hops")
      local forwards = r:query "select count(*) as n from hop where run_id = :run and endpoint like 'model%.forward'"[1].n
      t.equal(forwards, r:query "select count(*) as n from step where run_id = :run"[1].n, "a forward a step")
    end
  end

  -- posts, awaited in another order, while the replicas change
  local e <close> = lathe.engine { model = model, bus = bus, workers = { model = 2 }, label = bus }
  local posts = {}
  for i, prompt in ipairs(PROMPTS) do posts[i] = e:post { prompt = prompt, output_tokens = 12 } end
  t.equal(posts[1]:done(), false)
  t.equal(e:scale("model", 3), true)
  t.equal(e:health().replicas, 3)
  for i = #PROMPTS, 1, -1 do t.equal(ids(posts[i]:await()), expected[i], bus .. " post") end
  t.equal(posts[1]:done(), true)
  t.equal(e:scale("model", 1), true)
  t.equal(e:scale("tokenizer", 2), true)
  t.equal(ids(e:post { prompt = "one", output_tokens = 12 }:await()), expected[1])

  -- any service by name, with a table; another replica's by its number
  t.equal(table.concat(e:call("tokenizer", "encode", { text = "AB" }).tokens, " "), "65 66")
  t.equal(e:call("tokenizer", "decode", { tokens = { 65, 66 } }).text, "AB")
  t.equal(e:call("model", "describe").architecture, "tiny")
  t.equal(e:call("memory", "usage").blocks_used, 0)
  t.equal(#e:call("scheduler", "rank").ranked, 0)
  t.equal(e:scale("model", 2), true)
  t.equal(e:call("model:1", "describe").architecture, "tiny")
  t.equal(e:scale("model", 1), true)
  local nothing, reason, code = e:call("model", "forwrad", {})
  t.truth(nothing == nil and reason:find "forward" and code < 0, "the nearest is named: " .. tostring(reason))
  nothing, reason = e:call("memory", "reserve")
  t.truth(nothing == nil and #reason > 10, "not by hand")

  -- what is known of it
  local health, stats = e:health(), e:stats()
  t.equal(health.ready, true)
  t.equal(health.degraded, "normal")
  t.equal(health.services.model.breaker, "closed")
  t.equal(stats.failed, 0)
  if bus ~= "direct" then t.truth(stats.endpoints["model.forward"].calls > 5, "counted") end
  if bus == "shm" then t.truth(health.services.model.pid > 1, "a process") end

  -- cancelled, refused, misused
  local endless = e:post { prompt = "on and on", max_tokens = 200, ignore_eos = true }
  e:advance(0.00005)
  endless:cancel()
  t.equal(endless:await().finish_reason, "abort")
  local long = e:post { prompt = ("long "):rep(100), max_tokens = 5 }:await()
  t.equal(long.finish_reason, "error")
  t.truth(long.error:find "context", long.error)
  local none, why = e:scale("model", 0)
  t.truth(none == nil and why:find "1", "scaled to none")
  none, why = e:scale("modell", 2)
  t.truth(none == nil and why:find "modell", "scaled what isn't there")
  t.fails(function() e:post { promt = "x" } end, "promt", "prompt")

  -- rows while it is open, and after
  local q = e:results()
  t.equal(q:query "select count(*) as n from request where run_id = :run and finish_reason is not null"[1].n, 7)
  t.equal(q:query "select count(*) as n from service_event where run_id = :run and what = 'scaled'"[1].n, 5)
  t.equal(q:query "select state from run where id = :run"[1].state, "running")
  local id = q.id
  e:close()
  t.fails(function() e:post "late" end, "closed")
  t.fails(function() posts[1]:await() end, "closed")
  t.equal(lathe.sql(q.database):query("select state from run where id = ?", id)[1].state, "done")
end

-- another bus in the middle of answers changes nothing but what is counted
do
  local e <close> = lathe.engine { model = model, bus = "direct", workers = { model = 2 }, trace = { hops = true } }
  local posts = {}
  for i, prompt in ipairs(PROMPTS) do posts[i] = e:post { prompt = prompt, output_tokens = 12 } end
  for _, bus in ipairs { "sync", "async", "direct", "sync", "sync" } do
    e:swap("bus", bus)
    e:advance(0.0003)
  end
  for i = 1, #PROMPTS do t.equal(ids(posts[i]:await()), expected[i], "swapped") end
  t.truth(e:results():query "select count(*) as n from hop where run_id = :run"[1].n > 0, "hops of the counted part")
  t.equal(e:results():query "select count(*) as n from service_event where run_id = :run and what = 'swapped'"[1].n, 5)
  t.fails(function() e:swap("bus", "shm") end, "shm")
  t.fails(function() e:swap("model", "tiny") end, "bus")
  t.equal(ids(e:post { prompt = "one", output_tokens = 12 }:await()), expected[1])
end

-- an engine that is given work by hand only
t.fails(function() lathe.engine { model = model, workload = { "x" } } end, "workload")
t.fails(function() lathe.engine { model = model, bus = "snyc" } end, "sync")
t.fails(function() lathe.engine { model = model, workers = { modle = 2 } } end, "model")
