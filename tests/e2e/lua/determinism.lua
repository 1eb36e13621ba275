-- The same seed gives the same tokens, whatever shares the batch; another gives others.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local model = lathe.model "tiny"

local function texts(fields)
  local d = { model = model, trace = false, sampler = { "topp", temperature = 1.0 }, seed = 1, workload = {} }
  for i = 1, 6 do d.workload[i] = { prompt = "prompt " .. i, output_tokens = 12 } end
  for k, v in pairs(fields or {}) do d[k] = v end
  local list = {}
  for i, o in ipairs(lathe.run(d):outputs()) do list[i] = table.concat(o.tokens, " ") end
  return list
end

local one = texts()
t.equal(table.concat(texts(), "|"), table.concat(one, "|"), "same seed")
t.truth(table.concat(texts { seed = 2 }, "|") ~= table.concat(one, "|"), "another seed")
t.equal(table.concat(texts { engine = { batch_requests = 1 } }, "|"), table.concat(one, "|"), "one at a time")
t.equal(table.concat(texts { engine = { batch_tokens = 16 } }, "|"), table.concat(one, "|"), "small steps")
t.equal(table.concat(texts { batching = "static" }, "|"), table.concat(one, "|"), "static batching")
t.equal(table.concat(texts { scheduler = "sjf" }, "|"), table.concat(one, "|"), "another scheduler")
t.equal(table.concat(texts { kvcache = { "paged", block_tokens = 4 } }, "|"), table.concat(one, "|"), "other blocks")

-- a request's own seed; greedy knows no seed
local own = { { prompt = "x", output_tokens = 12, sampling = { temperature = 1, seed = 77 } } }
t.equal(texts { workload = own, seed = 5 }[1], texts { workload = own, seed = 6 }[1], "a request's own seed")
t.equal(texts { sampler = "greedy", seed = 1 }[1], texts { sampler = "greedy", seed = 2 }[1], "greedy")
