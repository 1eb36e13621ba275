-- What becomes of requests: forced lengths, limits, errors of one that leave the others alone.
-- SPDX-License-Identifier: MIT
local lathe    = require "lathe"
local t        = require "support"
local workload = require "lathe.workload"

local model = lathe.model { "tiny", context = 128 }

-- forced lengths are exact, also where the model would stop; max_tokens is a limit
local r = lathe.run { model = model, workload = {
  { prompt = "one", output_tokens = 1 }, { prompt = "two", output_tokens = 17 }, { prompt = "three", output_tokens = 40 },
  { prompt = "four", max_tokens = 6, ignore_eos = true }, "five" } }
local out = r:outputs()
t.equal(#out[1].tokens, 1)
t.equal(#out[2].tokens, 17)
t.equal(#out[3].tokens, 40)
t.equal(#out[4].tokens, 6)
t.equal(out[2].finish_reason, "length")
t.equal(#out[2].logprobs, 17)
for _, lp in ipairs(out[2].logprobs) do t.truth(lp <= 0, "log-probabilities") end
for _, o in ipairs(out) do t.equal(o.error, nil) end

-- outputs stand as the workload lists them, whenever they arrive
local late = lathe.run { model = model, trace = false, workload = {
  { prompt = "late", at = 0.03, output_tokens = 2 }, { prompt = "early", at = 0, output_tokens = 3 } } }
t.equal(#late:outputs()[1].tokens, 2)
t.equal(#late:outputs()[2].tokens, 3)

-- a prompt beyond the context ends as an error; the rest go on
r = lathe.run { model = model, workload = {
  { prompt = "short", output_tokens = 4 }, { prompt = ("long "):rep(60), output_tokens = 4 }, { prompt = "after", output_tokens = 4 } } }
out = r:outputs()
t.equal(out[1].finish_reason, "length")
t.equal(out[2].finish_reason, "error")
t.truth(out[2].error:find "context", "the sentence names the context: " .. tostring(out[2].error))
t.equal(#out[2].tokens, 0)
t.equal(#out[3].tokens, 4)
t.equal(r:query "select state from run where id = :run" [1].state, "done")
t.equal(r:query "select count(*) as n from request where run_id = :run and finish_reason = 'error'" [1].n, 1)
t.equal(r:query "select count(*) as n from request where run_id = :run and finish_reason = 'length'" [1].n, 2)
t.equal(r:query "select count(*) as n from event where run_id = :run and message like '%context%'" [1].n, 1)

-- a pool that can't hold one of them: that one fails, the small one runs
r = lathe.run { model = model, kvcache = { "paged", block_tokens = 4, blocks = 5 },
                workload = { { prompt = ("x"):rep(60), output_tokens = 4 }, { prompt = "y", output_tokens = 4 } } }
out = r:outputs()
t.equal(out[1].finish_reason, "error")
t.truth(#out[1].error > 10, "a sentence")
t.equal(#out[2].tokens, 4)

-- ids outside the vocabulary: that request fails alone
r = lathe.run { model = model, trace = false, workload = { { tokens = { 1, 100000 }, output_tokens = 2 }, { prompt = "ok", output_tokens = 2 } } }
out = r:outputs()
t.equal(out[1].finish_reason, "error")
t.equal(#out[2].tokens, 2)

-- prompts of a wanted length, the same by seed, different by request
r = lathe.run { model = model, trace = { tokens = "all" }, seed = 4,
                workload = workload.constant { rate = 1000, requests = 3, prompt = workload.fixed(30), output = 2 } }
local lengths = r:query "select prompt_tokens as n, prompt_sha256 as h from request where run_id = :run order by id"
for _, row in ipairs(lengths) do t.equal(row.n, 30) end
t.truth(lengths[1].h ~= lengths[2].h, "different stretches")
local again = lathe.run { model = model, seed = 4,
                workload = workload.constant { rate = 1000, requests = 3, prompt = workload.fixed(30), output = 2 } }
t.equal(again:query "select prompt_sha256 as h from request where run_id = :run order by id" [3].h, lengths[3].h)

-- a closed loop keeps its number in flight and thinks in between
r = lathe.run { model = model, workload = workload.closed { concurrency = 2, think = 0.01, requests = 6, prompt = "a", output = 5 } }
t.equal(#r:outputs(), 6)
t.truth(r.elapsed_s >= 0.02, "two thinks of 10 ms at least")
local most = r:query [[select max(n) as n from (select count(*) as n from step_request where run_id = :run group by step_id)]][1].n
t.truth(most <= 2, "at most two at once")

-- fields arrive in the request's row
r = lathe.run { model = model, workload = { { prompt = "x", output_tokens = 2, priority = 3, class = "chat", tenant = "ann", session = 9,
  turn = 2, slo = { ttft = 0.5, tpot = 0.1 }, deadline_s = 60, correlation_id = "abc-1", at = 0.005 } } }
local row = r:query "select * from request where run_id = :run" [1]
t.equal(row.priority, 3)
t.equal(row.class, "chat")
t.equal(row.tenant, "ann")
t.equal(row.session, 9)
t.equal(row.turn, 2)
t.equal(row.slo_ttft_ns, 500000000)
t.equal(row.slo_tpot_ns, 100000000)
t.equal(row.planned_ns, 5000000)
t.equal(row.deadline_ns, 60005000000)
t.equal(row.correlation_id, "abc-1")

-- attention of one request only, some layers, some positions
r = lathe.run { model = model, workload = { { prompt = "abcdef", output_tokens = 3 }, { prompt = "ghijkl", output_tokens = 3 } },
                trace = { attention = { format = "top", top_k = 2, layers = { 1 }, positions = { 2, 4 }, requests = { 2 } } } }
local probed = r:query "select request_id, layer, position, count(*) as heads from attention where run_id = :run group by 1, 2, 3 order by 3"
t.equal(#probed, 3)
t.equal(probed[1].position, 2)
t.equal(probed[3].position, 4)
t.equal(probed[1].layer, 1)
t.equal(probed[1].heads, model:info().heads)
