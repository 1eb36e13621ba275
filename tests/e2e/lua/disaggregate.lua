-- Prefill and decode on replicas of their own: one request for whoever counts, two rows for SQL.
-- SPDX-License-Identifier: MIT
local lathe    = require "lathe"
local t        = require "support"
local workload = require "lathe.workload"

-- A step takes 1 ms, 10 µs more for each prompt token and 100 µs for each that decodes.
local model = lathe.model { "sim", step_us = 1000, prefill_us = 10, prefill_context_ns = 0, decode_us = 100, decode_context_ns = 0 }

local function run(w, rest)
  local description = { model = model, workload = w, clock = "virtual", replicas = 2, batching = "continuous", seed = 3,
                        disaggregate = { prefill = 1, transfer_us = 500, transfer_us_per_token = 3 }, trace = { rows = "requests" } }
  for k, v in pairs(rest or {}) do description[k] = v end
  return lathe.fleet(description)
end

-- One alone: 2 ms for its prompt, 0.8 ms to move, 4 × 1.1 ms for what it says further.
local one = { { at = 1, prompt_tokens = 100, output_tokens = 5, class = "chat", tenant = "a", session = 7, turn = 2, predicted = 5,
                slo = { ttft = 0.0021, tpot = 0.0014 } } }
local r = run(one)
t.near(r.summary.ttft.mean, 0.002, 1e-9, "TTFT: the first half's")
t.near(r.summary.response.mean, 0.0072, 1e-9, "until the last token")
t.near(r.summary.tpot.mean, 0.0013, 1e-9, "TPOT: with the way between")
t.equal(r.summary.requests, 1)
t.equal(r.summary.with_slo, 1)
t.equal(r.summary.met_slo, 1)

-- Its rows, and the join that simulate_split.h gives.
local rows = r:query "select * from request where run_id = :run order by id"
t.equal(#rows, 2)
for _, name in ipairs { "class", "tenant", "session", "turn", "correlation_id", "priority" } do
  t.equal(rows[1][name], rows[2][name], name)
end
t.equal(rows[1].session, 7)
t.equal(rows[1].replica .. " " .. rows[2].replica, "0 1")
t.equal(rows[1].output_tokens + rows[2].output_tokens, 5)
t.equal(rows[2].prompt_tokens, 101)
t.equal(rows[2].cached_tokens, 100)
t.equal(rows[1].predicted_tokens .. " " .. rows[2].predicted_tokens, "1 4")
t.equal(rows[2].planned_ns, rows[1].finish_ns)
t.equal(rows[1].slo_tpot_ns, nil)
t.equal(rows[2].slo_ttft_ns, nil)
local whole = r:query [[select (a.first_token_ns - a.planned_ns) / 1e6 as ttft_ms, (b.finish_ns - a.planned_ns) / 1e6 as e2e_ms,
       (b.finish_ns - a.first_token_ns) / 1e6 / b.output_tokens as tpot_ms
  from request a join request b on b.run_id = a.run_id and b.correlation_id = a.correlation_id and b.id > a.id where a.run_id = :run]][1]
t.near(whole.ttft_ms, 2, 1e-9)
t.near(whole.e2e_ms, 7.2, 1e-9)
t.near(whole.tpot_ms, 1.3, 1e-9)

-- Who wants one token ends where it began; targets that the whole misses are missed.
t.equal(run { { prompt_tokens = 100, output_tokens = 1 } }:query "select count(*) as n from request where run_id = :run"[1].n, 1)
one[1].slo.tpot = 0.0012
t.equal(run(one).summary.met_slo, 0)

-- Many, with every router, as few places as may be, a closed loop: all are served, and Little's law holds (or the run fails).
local many = workload.poisson { rate = 300, requests = 3000, seed = 5, prompt = workload.lognormal { median = 60, sigma = 1, max = 500 },
                                output = workload.lognormal { median = 6, sigma = 1, max = 60 } }
local tokens
for _, router in ipairs { "round_robin", "random", "p2c", "least_loaded", "prefix", { "central", places = 2 } } do
  local s = run(many, { replicas = 5, router = router, disaggregate = { prefill = 2, transfer_us_per_token = 20 },
                        engine = { max_requests = 4 }, trace = false }).summary
  t.equal(s.refused + s.failed, 0, "refused or failed")
  t.equal(s.ttft.count, 3000, "counted")
  tokens = tokens or s.output_tokens
  t.equal(s.output_tokens, tokens, "tokens, whatever the router")
end
local users = workload.closed { concurrency = 7, think = 0.01, requests = 500, prompt = 40, output = 5 }
t.equal(run(users, { trace = false }).summary.ttft.count, 500)

-- A replica of either kind dies: who was there is computed again, there; others go elsewhere.
for _, replica in ipairs { 0, 3 } do
  local faults = { { at = 2, kind = "dies", replica = replica, lasts = 1 } }
  for i = 1, 20 do faults[i + 1] = { at = 4 + 0.1 * i, kind = "loses_cache", replica = replica } end
  local s = run(many, { replicas = 5, disaggregate = { prefill = 2 }, trace = false, faults = faults }).summary
  t.equal(s.ttft.count, 3000, "served although replica " .. replica .. " died")
  t.truth(s.preemptions > 0, "some began again")
end

-- All that decode are away at once: halves wait in front of them, prompts go on meanwhile.
local away = {}
for i = 2, 4 do away[i - 1] = { at = 2, kind = "dies", replica = i, lasts = 2 } end
local gone = run(many, { replicas = 5, disaggregate = { prefill = 2 }, trace = false, faults = away }).summary
t.equal(gone.response.count, 3000)
t.truth(gone.response.max > 2 and gone.ttft.max < 1, "first tokens came meanwhile")

-- Whatever the batching; with preemption for want of room; with deadlines that pass on the way.
for _, batching in ipairs { "chunked", "prefill_first", "static", "dynamic", "memory_aware", "single" } do
  local s = run(many, { replicas = 20, disaggregate = { prefill = 10, transfer_us = 100 }, batching = batching, trace = false }).summary
  t.equal(s.output_tokens, tokens, "tokens by " .. batching)
end
local crowd = workload.burst { size = 50, every = 1, requests = 200, prompt = 60, output = 60 }
local tight = run(crowd, { replicas = 3, engine = { kv_memory_mb = 1.25, context_tokens = 600 }, trace = false }).summary
t.truth(tight.preemptions > 0 and tight.output_tokens == 200 * 60, tight.preemptions .. " preemptions")
local late = workload.poisson { rate = 50, requests = 400, seed = 5, prompt = 40, output = 5,
                                classes = { { name = "late", deadline_s = 0.008 }, { name = "not" } } }
local lates = run(late, { disaggregate = { prefill = 1, transfer_us = 7000 } })
t.equal(lates:query "select count(*) as n from request where run_id = :run and class = 'late' and finish_reason = 'deadline'"[1].n,
        lates:query "select count(*) as n from request where run_id = :run and class = 'late' and replica = 1"[1].n, "deadlines")
t.equal(lates:query "select count(*) as n from request where run_id = :run and class = 'not' and finish_reason = 'deadline'"[1].n, 0)

-- Texts and token ids as prompts; ids of their own; refused ones beside them, which are one row each.
local listed = { { prompt = "a text, and its bytes are tokens", output_tokens = 3, correlation_id = "mine" },
                 { tokens = { 1, 2, 3, 4 }, max_tokens = 4, ignore_eos = true }, { prompt_tokens = 9000, output_tokens = 2 },
                 { prompt_tokens = 5, output_tokens = 2 } }
local l = run(listed, { engine = { context_tokens = 64 } })
t.equal(l.summary.refused, 1)
t.equal(l.summary.output_tokens, 3 + 4 + 2)
local by_id = l:query [[select correlation_id, count(*) as n, sum(output_tokens) as said from request
                        where run_id = :run group by 1 order by 3]]
t.equal(#by_id, 4)
t.equal(by_id[3].correlation_id .. by_id[3].said, "mine3")
for i, row in ipairs(by_id) do t.equal(row.n, i == 1 and 1 or 2, "rows of " .. i) end
local refused = run(workload.poisson { rate = 10, requests = 100, prompt = workload.uniform { from = 1, to = 100 }, output = 4 },
                    { engine = { context_tokens = 64 } })
t.truth(refused.summary.refused > 20 and refused.summary.refused + refused.summary.ttft.count == 100, "refused " .. refused.summary.refused)
local halves = refused:query [[select count(*) as n, count(*) filter (where finish_reason = 'error') as refused,
  count(*) filter (where prompt_tokens between 61 and 63 and finish_reason = 'length' and replica = 0) as alone
  from request where run_id = :run]][1] -- 61 … 63 fit with one output, and not with four
t.equal(halves.refused, refused.summary.refused)
t.truth(halves.alone > 0, "some are refused by half")
t.equal(halves.n, 2 * refused.summary.ttft.count + halves.refused + halves.alone)

-- What is wrong with it is said at the script's line.
local load = { { prompt_tokens = 4 } }
t.fails(function() run(load, { disaggregate = 3 }) end, "disaggregate: should be { prefill = n")
t.fails(function() run(load, { disaggregate = {} }) end, "\"prefill\" should say how many of the 2 replicas")
t.fails(function() run(load, { disaggregate = { prefill = 2 } }) end, "\"prefill\" is 2, but should be 1 to 1")
t.fails(function() run(load, { disaggregate = { prefil = 1 } }) end, "prefill")
t.fails(function() run(load, { replicas = 1 }) end, "two replicas at least")
t.fails(function() run(load, { clock = "real" }) end, "is for clock = \"virtual\"")
t.fails(function() lathe.run { models = { { model = model }, { model = model } }, clock = "virtual", workload = load,
                               disaggregate = { prefill = 1 } } end, "one model")
