-- The prefix cache: answers are the same tokens with it and without, whatever the pressure; and whoever looks into it finds something.
-- SPDX-License-Identifier: MIT
local lathe    = require "lathe"
local t        = require "support"
local workload = require "lathe.workload"

-- ── the same answers, on a model that computes ────────────────────────────────────────

local tiny = lathe.model { "tiny", swap_blocks = 256 }
local chats = workload.sessions { rate = 2000, sessions = 12, turns = 4, system = { tokens = 40, groups = 2 }, seed = 3,
                                  prompt = workload.uniform { from = 4, to = 30 }, output = workload.uniform { from = 4, to = 12 },
                                  each = { tenant = "t" } }
for i, r in ipairs(chats.requests) do r.tenant = "t" .. i % 2 end

-- → tokens of all answers as one text, prompt tokens that needed no forward, preemptions
local function serve(kvcache, more)
  local d = { model = tiny, kvcache = kvcache, batching = "chunked", workload = chats, trace = { tokens = "output" }, seed = 1,
              engine = { batch_requests = 8, batch_tokens = 64, context_tokens = 512 } }
  for k, v in pairs(more or {}) do d[k] = v end
  local run <close> = lathe.run(d)
  local list = {}
  for i, o in ipairs(run:outputs()) do list[i] = table.concat(o.tokens, " ") end
  local row = run:query "select sum(cached_tokens) as cached, sum(preemptions) as preemptions from request where run_id = :run"[1]
  return table.concat(list, "|"), row.cached, row.preemptions
end

local expected, none = serve { "paged", block_tokens = 4 }
t.equal(none, 0, "cached tokens of paged")
local _, all = serve { "prefix", block_tokens = 4 }
for i, case in ipairs {
  { { "prefix", block_tokens = 4 } }, { { "prefix", block_tokens = 1 } }, { { "prefix", block_tokens = 16, evict = "lfu" } },
  { { "prefix", block_tokens = 4, hash_bits = 0 } }, { { "prefix", block_tokens = 4, share = "tenant" } },
  { { "prefix", block_tokens = 4, blocks = 56 }, {}, true }, { { "prefix", block_tokens = 4, blocks = 80, preempt = "swap" }, {}, true },
  { { "prefix", block_tokens = 4, blocks = 56, evict = "lfu" }, { scheduler = "prefix" }, true },
  { { "prefix", block_tokens = 4 }, { scheduler = "prefix", batching = "continuous" } },
  { { "prefix", block_tokens = 4 }, { bus = "shm" } },
} do
  local what = "case " .. i
  local answers, cached, preemptions = serve(case[1], case[2])
  t.equal(answers, expected, what)
  t.truth(cached > 0, "found by " .. what)
  t.truth(not case[3] or preemptions > 0, "short of room: " .. what)
end
t.truth(all > 1000, "found of prompts: " .. all)

-- ── in virtual time: whoever looks into the cache ─────────────────────────────────────

local sim = lathe.model { "sim", step_us = 2000, prefill_us = 100 }

local function fleet(d)
  d.model, d.clock, d.seed = sim, "virtual", 1
  d.kvcache = d.kvcache or { "prefix", blocks = 400 }
  d.trace = { rows = "requests" }
  local run <close> = (d.replicas and lathe.fleet or lathe.run)(d)
  local row = run:query [[select sum(cached_tokens) as cached, sum(prompt_tokens) as prompt, count(*) as n, count(distinct replica) as replicas
                          from request where run_id = :run and finish_reason = 'length']][1]
  row.rate = row.cached / row.prompt
  return row
end

local function talks(more)
  local w = { rate = 4, sessions = 60, turns = 5, think = 4, system = 64, seed = 5, prompt = workload.uniform { from = 20, to = 60 },
              output = workload.uniform { from = 10, to = 30 } }
  for k, v in pairs(more or {}) do w[k] = v end
  return workload.sessions(w)
end

t.equal(fleet { workload = talks(), kvcache = "paged" }.cached, 0, "paged finds nothing")
local asked_only, both = fleet { workload = talks(), kvcache = "prefix" }, fleet { workload = talks { forced = true }, kvcache = "prefix" }
t.truth(asked_only.rate > 0.3, "a conversation's prompts are found")
t.truth(both.rate > asked_only.rate + 0.05, ("prompts and answers: %.2f, prompts alone %.2f"):format(both.rate, asked_only.rate))
local apart = fleet { workload = talks { system = 512, turns = 1 }, kvcache = { "prefix", share = "session", blocks = 400 } }
t.equal(apart.cached, 0, "sessions apart have nothing in common")

-- Turns that stay together find what the turn before left; drawn, it is elsewhere.
local router = { "prefix", prefix_tokens = 84, bound = 100 }
local stay, drawn = fleet { workload = talks(), replicas = 4, router = router }, fleet { workload = talks(), replicas = 4, router = "random" }
t.equal(stay.replicas, 4, "replicas")
t.truth(stay.rate > drawn.rate + 0.1, ("router/prefix finds %.2f, random %.2f"):format(stay.rate, drawn.rate))

-- Two kinds of long prompts in turn, in a cache that has room for one: served by kind, or computed each time.
local kinds = workload.sessions { rate = 2000, sessions = 40, turns = 1, system = { tokens = 640, groups = 2 }, prompt = 8, output = 4, seed = 2 }
local function one_by_one(scheduler)
  return fleet { workload = kinds, scheduler = scheduler, kvcache = { "prefix", blocks = 50 }, engine = { batch_requests = 1 } }.rate
end
local asked, in_turn = one_by_one "prefix", one_by_one "fcfs"
t.truth(in_turn < 0.3 and asked > 0.8, ("scheduler/prefix finds %.2f, fcfs %.2f"):format(asked, in_turn))
