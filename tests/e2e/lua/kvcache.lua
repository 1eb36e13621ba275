-- SPDX-License-Identifier: MIT
-- Caches that choose, through the whole engine: what they may look at is what the rows say, an answer is as likely
-- alone as beside others and in a worker process, and without a budget nothing is lost.
local lathe   = require "lathe"
local support = dofile(debug.getinfo(1, "S").source:match "^@(.*)/" .. "/support.lua")
local equal, near, truth, fails = support.equal, support.near, support.truth, support.fails

local BUDGET <const>, PROMPT <const>, ANSWER <const> = 12, 6, 40
local model = lathe.model "tiny"
local prompt, given = {}, {}
for i = 1, PROMPT do prompt[i] = 7 * i end
for i = 1, ANSWER do given[i] = 37 * i % 250 end

local function run(kvcache, more, workload)
  local description = { model = model, kvcache = kvcache, database = "kvcache.db", trace = { kv = true, attention = "full" },
                        workload = workload or { { tokens = prompt, forced = given } } }
  for k, v in pairs(more or {}) do description[k] = v end
  return lathe.run(description)
end
local function cache(name, options)
  local kvcache = { name, block_tokens = 4 }
  for k, v in pairs(options) do kvcache[k] = v end
  return kvcache
end

local everything = run { "paged", block_tokens = 4 }
local policies = {
  { "window", {} }, { "sinks", { sinks = 2 } }, { "sinks", { sinks = 2, positions = "original" } }, { "sinks", { sinks = 2, positions = "cache" } },
  { "h2o", {} }, { "h2o", { scope = "layer" } }, { "h2o", { scope = "head" } }, { "random", {} }, { "random", { scope = "head" } },
}
for _, policy in ipairs(policies) do
  local name, options = table.unpack(policy)
  local what = name .. lathe.json.encode(options)
  -- unlimited: nothing is lost
  options.budget = 0
  near(run(cache(name, options)):perplexity(), everything:perplexity(), 1e-5 * everything:perplexity(), what .. " without a budget")
  -- with one: what a row looked at is the budget and itself, and the rows say so
  options.budget = BUDGET
  local kept = run(cache(name, options))
  truth(kept:perplexity() ~= everything:perplexity(), what .. " keeps something else")
  local rows = kept:query [[select s.first_position as p, s.context as c, s.tokens as n, a.keys as k from step_request s
    join attention_token a on a.run_id = s.run_id and a.step_id = s.step_id and a.position = s.first_position + s.tokens - 1
    where s.run_id = :run order by p]]
  equal(#rows, ANSWER, what)
  for _, row in ipairs(rows) do
    equal(row.c, math.min(row.p, row.n == 1 and BUDGET or 0) + row.n, what .. ": context at " .. row.p)
    equal(row.k, row.c, what .. ": keys at " .. row.p)
  end
  local used = kept:query "select max(evicted_tokens) as evicted, max(blocks_used) as blocks from kv_usage where run_id = :run"[1]
  equal(used.evicted, PROMPT + ANSWER - 1 - BUDGET, what .. ": evicted")
  truth(used.blocks <= everything:query "select max(blocks_used) as n from kv_usage where run_id = :run"[1].n, what .. ": blocks")
  -- the same beside others, cut into many steps, and by a worker process
  local others = { { tokens = prompt, forced = given }, { prompt = "another, longer prompt", max_tokens = 30 }, "and a third" }
  if name ~= "random" then -- whose choice is by the request's number, which stays
    others[1], others[2] = others[2], others[1]
  end
  local beside = run(cache(name, options), nil, others)
  near(beside:perplexity(), kept:perplexity(), 1e-5 * kept:perplexity(), what .. " beside others")
  near(run(cache(name, options), { bus = "shm" }):perplexity(), kept:perplexity(), 1e-6 * kept:perplexity(), what .. " over shm")
end

-- where the keys are rotated to makes a difference, once something was evicted
truth(run(cache("sinks", { budget = BUDGET, positions = "cache" })):perplexity()
  ~= run(cache("sinks", { budget = BUDGET, positions = "original" })):perplexity(), "positions")

-- a pool that is too small: by choice, who needs more is refused
local requests = {}
for i = 1, 4 do requests[i] = { tokens = { i, i, i, i }, forced = given } end
local refused = run({ "paged", block_tokens = 4, blocks = 24, preempt = "refuse" }, nil, requests)
local reasons = refused:query "select finish_reason as r, count(*) as n, sum(preemptions) as p from request where run_id = :run group by r order by r"
equal(reasons[1].r, "error")
equal(reasons[2].r, "length")
equal(reasons[1].p + reasons[2].p, 0)
for _, output in ipairs(refused:outputs()) do
  truth(not output.error or output.error:find("refuses who needs more", 1, true), output.error)
end
local preempted = run({ "paged", block_tokens = 4, blocks = 24 }, nil, requests)
equal(preempted:query "select count(*) as n from request where run_id = :run and finish_reason = 'length'"[1].n, 4)
truth(preempted:query "select sum(preemptions) as n from request where run_id = :run"[1].n > 0, "preempted")
-- and what was computed again stands once, as it was when its token came out
equal(preempted:query "select count(*) as n from attention_token where run_id = :run"[1].n, 4 * (4 + ANSWER - 1))
equal(preempted:query [[select count(*) as n from token t join attention_token a on a.run_id = t.run_id and a.request_id = t.request_id
  and a.position = t.position - 1 where t.run_id = :run and t.kind = 'output' and a.step_id <> t.step_id]][1].n, 0)

-- a cache that forgets needs no pool as long as a prompt that comes in pieces
local long = {}
for i = 1, 300 do long[i] = i % 250 end
local function pieces(blocks, batch_tokens)
  return run({ "sinks", budget = 16, block_tokens = 4, blocks = blocks }, { engine = { batch_tokens = batch_tokens } },
    { { tokens = long, max_tokens = 20, ignore_eos = true } })
end
local small, large = pieces(24, 20), pieces(400, 20)
equal(table.concat(small:outputs()[1].tokens, " "), table.concat(large:outputs()[1].tokens, " "), "in a small pool")
truth(small:query "select max(blocks_used) as n from kv_usage where run_id = :run"[1].n <= 10, "few blocks")
truth(pieces(24, 512):outputs()[1].error:find("smaller pieces (batch_tokens)", 1, true), "whole, it is too long")

-- sentences
fails(function() run { "sinks", positions = "cached" } end, "positions")
fails(function() run { "sinks", sink = 1 } end, "sink")
fails(function() run { "h2o", scope = "heads" } end, "scope")
fails(function() run { "paged", dtype = "q4" } end, "dtype")
fails(function() lathe.engine { model = model, trace = { probes = { { format = "top", requests = { 1 } } } } } end, "no request is known beforehand")
