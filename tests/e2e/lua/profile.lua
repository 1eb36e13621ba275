-- Profiles are found by name, every shipped one is read, and what isn't there is one sentence.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

for _, name in ipairs { "illustrative-7b", "illustrative-8b-gqa", "smollm2-135m-2-cores" } do
  local path = lathe.profile(name)
  t.equal(lathe.profile(path), path, "a path stands for itself")
  local r <close> = lathe.run { model = lathe.model { "sim", profile = path }, clock = "virtual", trace = false,
                                workload = { { prompt_tokens = 100, output_tokens = 2 } } }
  t.truth(r.summary.ttft.mean > 0.001, name .. " takes its time")
  local file <close> = io.open(path)
  t.equal(file:read "l":find "NOT MEASURED" ~= nil, name:find "illustrative" ~= nil, name .. " says what it is")
end
t.fails(function() lathe.profile "abacus" end, "there is no profile \"abacus\"", "calibrate")
t.fails(function() lathe.profile "profiles/abacus.profile" end, "there is no profile")
t.fails(function() lathe.profile(7) end, "takes a profile's name")

-- A run of a sweep that is on a thread of its own has a model of its own, with the same profile.
local sim = lathe.model { "sim", profile = lathe.profile "illustrative-7b", decode_us = 500 } -- what is given wins
local s = lathe.sweep { name = "profile", grid = { prompt = { 100, 200 } }, jobs = 2,
  run = function(p) return { model = sim, clock = "virtual", workload = { { prompt_tokens = p.prompt, output_tokens = 2 } } } end }
for _, row in ipairs(s:runs()) do
  t.near(row.metrics.ttft_p50_ms, 9.5 + 0.07 * row.point.prompt, 0.2, "first token in a sweep")
  t.near(row.metrics.tpot_p50_ms, 10, 0.2, "second token in a sweep")
end
