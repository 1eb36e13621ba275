-- Makes sample_trace.csv: a small trace in the form of the Azure LLM inference trace of 2023
-- (arrived_at in seconds, num_prefill_tokens, num_decode_tokens), generated from distributions
-- that we chose, not from anybody's data.
-- SPDX-License-Identifier: MIT
--
--   lathe run experiments/data/make_sample_trace.lua > experiments/data/sample_trace.csv
--
-- Arrivals alternate between calm (2 requests a second, 40 s on average) and busy (5, 20 s), so
-- that they are burstier than a Poisson process over a minute (index of dispersion 15) but hardly
-- from one gap to the next, as the real one is. Lengths are lognormal.
local workload = require "lathe.workload"

local trace = workload.mmpp { rates = { 2, 5 }, stays = { 40, 20 }, requests = 2000, seed = 20231116,
                              prompt = workload.lognormal { median = 600, sigma = 0.9, max = 8000 },
                              output = workload.lognormal { median = 90, sigma = 0.8, max = 1000 } }

print "arrived_at,num_prefill_tokens,num_decode_tokens"
for _, r in ipairs(trace.requests) do print(("%.6f,%d,%d"):format(r.at, r.prompt_tokens, r.output_tokens)) end
