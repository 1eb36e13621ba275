-- SPDX-License-Identifier: MIT
-- A workload made of all that a step can be, to calibrate tables on in one run with continuous batching:
--
--   staircases     all places decode, then one less, and so on: short contexts, then long ones
--   alone          prompts of 1 … 35 tokens, where kernels change, then of every remainder of their groups
--   cut            prompts longer than a step: steps without output, and ones with a long past
--   together       2 … places prompts at once
--   into decodes   prompts while 1, 3, 5 … others decode
--   traffic        as it comes
--
--   plan { second = 0.07, places = 8, prompt = workload.uniform { … }, output = …, batch_tokens = 128, effort = 1, seed = 1 }
--
-- `second` is what this machine needs for a prompt of 64 tokens: pauses are multiples of it. What overlaps
-- all the same is another step to learn from. About 360 × second in all, times `effort`.
local check    = require "lathe.check"
local workload = require "lathe.workload"

return function(t)
  local what <const> = "calibrate_plan"
  check.fields(what, t, { "second", "places", "prompt", "output", "batch_tokens", "effort", "seed" })
  local second, places = check.number(what, t, "second", 1e-9, 1e6), check.integer(what, t, "places", 1, 1 << 16)
  local middle = math.max(8, math.floor(t.prompt:expected()))
  local requests, at = {}, 0
  local function add(prompt, output) requests[#requests + 1] = { at = at, prompt_tokens = prompt, output_tokens = output } end
  local function pause(prompt_tokens, steps) at = at + second * (1.1 * prompt_tokens / 64 + 0.2 * steps + 0.2) end
  local function alone(prompt)
    add(prompt, 1)
    pause(prompt, 1)
  end
  for _ = 1, t.effort do
    for _, prompt in ipairs { 8, middle + 3 } do
      for k = 1, places do add(prompt, 6 * k) end
      pause(places * prompt, 6 * places)
    end
    for _ = 1, 3 do
      for prompt = 1, 16 do alone(prompt) end
    end
    for prompt = 17, 35 do alone(prompt) end
    for prompt = 36, 2 * middle, 5 do alone(prompt) end
    for i = 1, 8 do alone((1 + i % 2) * t.batch_tokens + 2 + 8 * i) end
    for together = 2, places do
      for k = 1, together do add(math.max(1, middle // 2 + 7 * k - 3 * together), 2) end
      pause(together * (middle // 2 + 7), 2)
    end
    for decoding = 1, places - 1, 2 do
      for _ = 1, decoding do add(8, 45) end
      pause(8 * decoding, 0)
      for i, prompt in ipairs { 5, 7, 9, 12, 14, 18, 22, 25, 34, 43, 56, 65, 80, 95, 111 } do
        add(prompt + decoding + i % 2, 1)
        pause(prompt + decoding, 2)
      end
      pause(0, 10)
    end
    local traffic = workload.poisson { rate = 0.4 / second, requests = 4 * places, seed = t.seed, prompt = t.prompt, output = t.output }
    for _, r in ipairs(traffic.requests) do
      requests[#requests + 1] = { at = at + r.at, prompt_tokens = r.prompt_tokens, output_tokens = r.output_tokens }
    end
    at = requests[#requests].at
    pause(middle, 20)
  end
  return { name = "calibration", requests = requests }
end
