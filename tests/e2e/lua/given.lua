-- SPDX-License-Identifier: MIT
-- Answers that are given (teacher forcing): what comes out, how likely it was, and what is refused.
local lathe   = require "lathe"
local support = dofile(debug.getinfo(1, "S").source:match "^@(.*)/" .. "/support.lua")
local equal, near, truth, fails = support.equal, support.near, support.truth, support.fails

local model = lathe.model "tiny"
local function run(workload, more)
  local description = { model = model, workload = workload, database = "given.db" }
  for k, v in pairs(more or {}) do description[k] = v end
  return lathe.run(description)
end

-- what comes out, and its score
local given = { 5, 257, 7, 8 } -- 257 ends a text, but not this one
local r = run { { tokens = { 1, 2, 3 }, forced = given }, { prompt = "free", max_tokens = 3 }, { tokens = { 9, 8 }, forced = { 1, 2 } } }
local outputs = r:outputs()
equal(table.concat(outputs[1].tokens, " "), table.concat(given, " "), "tokens")
equal(outputs[1].finish_reason, "length")
equal(#outputs[2].tokens, 3)
local rows = r:query "select request_id, name, value, n from score where run_id = :run order by 1"
equal(#rows, 2, "scores")
local sum, count = 0, 0
for i, which in ipairs { 1, 3 } do
  local nll = 0
  for _, logprob in ipairs(outputs[which].logprobs) do nll = nll - logprob end
  equal(rows[i].request_id, which)
  equal(rows[i].name, "nll")
  equal(rows[i].n, #outputs[which].tokens)
  near(rows[i].value, nll, 1e-9, "nll")
  near(r:perplexity(which), math.exp(nll / rows[i].n), 1e-9, "of one")
  sum, count = sum + nll, count + rows[i].n
end
near(r:perplexity(), math.exp(sum / count), 1e-9 * r:perplexity(), "of the run")
local tokens = r:query "select sum(logprob) as s from token where run_id = :run and request_id in (1, 3) and kind = 'output'"
near(tokens[1].s, -sum, 1e-9, "rows of token")

-- the same whatever is beside it, however it is sampled, cut, preempted, and through worker processes
local function likely(more) return run({ { tokens = { 1, 2, 3 }, forced = given }, "beside it" }, more):perplexity() end
local alone = r:perplexity(1)
for what, more in pairs {
  sampler = { sampler = { "topp", temperature = 1.7, top_k = 1 } }, cut = { engine = { batch_tokens = 2, batch_requests = 2 } },
  pool = { kvcache = { "paged", block_tokens = 4, blocks = 70 } }, async = { bus = "async" }, shm = { bus = "shm" }, mute = { trace = false },
} do
  near(likely(more), alone, 1e-6 * alone, what)
end

-- what a model came to freely, given to it, is as likely as it was
local free = run { { prompt = "Once", max_tokens = 20, ignore_eos = true } }
local again = run { { prompt = "Once", forced = free:outputs()[1].tokens } }
for i, logprob in ipairs(free:outputs()[1].logprobs) do equal(again:outputs()[1].logprobs[i], logprob) end

-- an engine that the script drives
do
  local e <close> = lathe.engine { model = model, database = "given.db" }
  equal(table.concat(e:post { prompt = "x", forced = { 3, 4 } }:await().tokens, " "), "3 4")
  near(e:results():perplexity(1), e:results():perplexity(), 1e-12)
end

-- resumed from rows alone, and another answer is another run
local same = run({ { tokens = { 1, 2, 3 }, forced = given } }, { resume = true })
truth(not same.resumed, "first")
local resumed = run({ { tokens = { 1, 2, 3 }, forced = given } }, { resume = true })
truth(resumed.resumed, "second")
near(resumed:perplexity(), same:perplexity(), 1e-9 * alone)
truth(not run({ { tokens = { 1, 2, 3 }, forced = { 5, 257, 7, 9 } } }, { resume = true }).resumed, "another answer")

-- sentences
fails(function() run { { tokens = { 1 }, forced = {} } } end, "request 1", "\"forced\" should have 1 to")
fails(function() run { { tokens = { 1 }, forced = "x" } } end, "array of token ids, not the text \"x\"")
fails(function() run { { tokens = { 1 }, forced = { 1.5 } } } end, "element 1 of \"forced\"")
fails(function() run { { tokens = { 1 }, forced = { 1, 260 } } } end, "element 2 of \"forced\" is 260", "0 to 259")
fails(function() run { { tokens = { 1 }, forced = { 1 }, max_tokens = 4 } } end, "leave out max_tokens")
fails(function() run { { tokens = { 1 }, force = { 1 } } } end, "no field \"force\"", "\"forced\"")
fails(function() return r:perplexity(2) end, "the request has no answer that was given")
fails(function() return r:perplexity(4) end, "requests are 1 to 3, not 4")
fails(function() return r:perplexity(0) end, "a request's number")
fails(function() return r:perplexity "one" end, "a request's number")
fails(function() return free:perplexity() end, "forced = { ids }")
fails(function() return r.perplexty end, "did you mean \"perplexity\"?")
local sim = lathe.model "sim"
-- a simulated model says what is given, and has no opinion of it
local said = lathe.run { model = sim, clock = "virtual", workload = { { tokens = { 1, 2 }, forced = { 5, 6, 7 } } } }
equal(#said:query "select * from token where run_id = :run and kind = 'output' and token = position + 3", 3, "tokens 5, 6, 7 at 2, 3, 4")
equal(#said:query "select * from score where run_id = :run", 0, "nothing is scored")
local short = lathe.run { model = sim, clock = "virtual", workload = { { prompt_tokens = 4, forced = { 1 } } } }
equal(short.summary.refused or short.summary.failed, 1, "a prompt known by its length")
