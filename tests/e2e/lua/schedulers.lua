-- Every scheduler serves the same requests with the same tokens, whoever waits, overtakes or is preempted.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local model = lathe.model "tiny"

local load = {}
for i = 1, 12 do
  load[i] = { prompt = ("prompt "):rep(i % 5 + 1) .. i, output_tokens = 4 + i % 3 * 6, predicted = i % 4 * 5,
              priority = i % 3, tenant = "t" .. i % 2, slo = { ttft = 0.5, tpot = 0.05 } }
end

local function tokens(scheduler, kvcache)
  local list = {}
  local run = lathe.run { model = model, scheduler = scheduler, kvcache = kvcache, trace = false, seed = 1, workload = load,
                          sampler = { "topp", temperature = 1.0 }, engine = { batch_requests = 3, batch_tokens = 24 } }
  for i, o in ipairs(run:outputs()) do list[i] = table.concat(o.tokens, " ") end
  return table.concat(list, "|")
end

local all = {
  { "sjf", preemptive = true, aging_s = 1 }, { "srpt", preempt = "recompute" }, { "srpt", preemptive = false },
  { "priority", preemptive = true, preempt = "recompute" }, { "mlfq", quantum = 2, preempt = "recompute" },
  { "edf", late = "last" }, "vtc", { "vtc", preempt_margin = 5 }, "hrrn",
}
local one = tokens "fcfs"
for _, scheduler in ipairs(all) do
  local name = type(scheduler) == "table" and scheduler[1] or scheduler
  t.equal(tokens(scheduler), one, name)
end

-- it needs a kvcache that tells what it holds, and says so where there is none
local ok, found = pcall(tokens, "prefix")
t.truth(ok and found == one or not ok and tostring(found):find("which prefixes it holds", 1, true), "prefix: " .. tostring(found))
