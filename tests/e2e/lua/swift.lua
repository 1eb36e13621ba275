-- The easy face: load, generate, batch_generate, analyze_attention, stats.
-- SPDX-License-Identifier: MIT
local swift = require "lathe.swift"
local t     = require "support"

local m = swift.load "tiny"
local text, output = m:generate("hello", { max_tokens = 8 })
t.equal(type(text), "string")
t.truth(#output.tokens >= 1 and #output.tokens <= 8)
t.equal(m:generate("hello", { max_tokens = 8 }), text, "greedy repeats itself")
t.equal(m:generate("hello", { max_tokens = 8, temperature = 1, seed = 3 }), m:generate("hello", { max_tokens = 8, temperature = 1, seed = 3 }))

local texts = m:batch_generate({ "hello", "world", "again" }, { max_tokens = 8, batching = "continuous" })
t.equal(#texts, 3)
t.equal(texts[1], text, "in a batch as alone")

local heads, run = m:analyze_attention("hello there", { max_tokens = 3 })
local info = m.model:info()
t.equal(#heads, info.layers * info.heads)
for i = 2, #heads do t.truth(heads[i].first_mass <= heads[i - 1].first_mass, "heaviest first") end
t.truth(heads[1].first_mass > 0 and heads[1].first_mass <= 1)
t.equal(run:query "select count(*) as n from request where run_id = :run" [1].n, 1)

local stats = m:stats()
t.equal(stats.runs, 6)
t.equal(stats.requests, 8)
t.truth(stats.tokens > 0 and stats.tokens_per_s > 0)

local none, why = m:generate(("x"):rep(100000))
t.equal(none, nil)
t.truth(why:find "context")
t.fails(function() m:generate("x", { max_token = 3 }) end, "did you mean \"max_tokens\"?")
m:close()
t.fails(function() m:generate "x" end, "used after it was closed")
