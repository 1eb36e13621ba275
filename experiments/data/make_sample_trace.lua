-- Makes sample_trace.csv: a small trace in the form of the Azure LLM inference trace of 2023
-- (arrived_at in seconds, num_prefill_tokens, num_decode_tokens), drawn from distributions
-- that we chose, not from anybody's data.
-- SPDX-License-Identifier: MIT
--
--   lathe run experiments/data/make_sample_trace.lua > experiments/data/sample_trace.csv
--
-- Arrivals alternate between calm (2 requests a second) and busy (8 a second), each lasting
-- 20 s on average, so that they are burstier than a Poisson process over a minute but not
-- from one gap to the next, as the real one is. Lengths are lognormal.
local random   = require "lathe.random"
local workload = require "lathe.workload"

local SEED <const>, ROWS <const> = 20231116, 200
local PHASES <const>, PROMPTS <const>, OUTPUTS <const> = 10, 11, 12

local prompt = workload.lognormal { median = 600, sigma = 0.9, max = 8000 }
local output = workload.lognormal { median = 90, sigma = 0.8, max = 1000 }

print "arrived_at,num_prefill_tokens,num_decode_tokens"
local now, busy, phase = 0.0, false, 1
local phase_ends = 20 * random.exponential(SEED, random.USER, PHASES, phase)
for i = 1, ROWS do
  local gap = random.exponential(SEED, random.ARRIVALS, 0, i)
  local rate = busy and 8 or 2
  while now + gap / rate > phase_ends do -- what is left of the gap passes at the next phase's rate
    gap = gap - (phase_ends - now) * rate
    now, busy, phase = phase_ends, not busy, phase + 1
    rate = busy and 8 or 2
    phase_ends = now + 20 * random.exponential(SEED, random.USER, PHASES, phase)
  end
  now = now + gap / rate
  print(("%.6f,%d,%d"):format(now, prompt:draw(SEED, PROMPTS, i), output:draw(SEED, OUTPUTS, i)))
end
