-- SPDX-License-Identifier: MIT
-- The extension's tables of what layers do, and the measures of heads, on a run of the tiny model: against each other, against
-- r:activations, and against what the model said.
local lathe   = require "lathe"
local support = dofile(debug.getinfo(1, "S").source:match "^@(.*)/" .. "/support.lua")
local equal, near, truth = support.equal, support.near, support.truth

local model <const> = lathe.model "tiny"
local LAYERS <const>, HEADS <const>, PROMPT <const> = 2, 2, { 10, 20, 30, 40, 50, 60, 70, 80 }
local r = lathe.run { model = model, database = "layer_tables.db", workload = { { tokens = PROMPT, output_tokens = 6, ignore_eos = true } },
  trace = { tokens = "all", probes = { { format = "norms" }, { format = "hidden", layers = { 1 } }, { format = "lens", top_k = 4 },
                                       { format = "full" }, { format = "scores" }, { format = "values" } } } }
local ROWS <const> = #PROMPT + 5 -- the last token's own row isn't computed

-- norms and hidden states
local norms = r:query "select * from layer_norms where run_id = :run order by position, layer"
equal(#norms, ROWS * LAYERS)
local activations = { [0] = r:activations { probe = 1, request = 1, layer = 0 }, r:activations { probe = 1, request = 1, layer = 1 } }
for _, row in ipairs(norms) do
  local a = activations[row.layer]
  local at = row.position * a.width
  for i, name in ipairs { "before", "attention", "feed", "after" } do equal(row[name], a[at + i], name) end
  truth(row.after <= row.before + row.attention + row.feed + 1e-4, "a sum is no longer than its parts")
  if row.layer == 1 then near(row.before, norms[2 * row.position + 1].after, 1e-6, "a layer begins where the one before ended") end
end
for _, row in ipairs(r:query "select * from head_norms where run_id = :run") do
  local a = activations[row.layer]
  equal(row.norm, a[row.position * a.width + 4 + row.head + 1], "a head's norm")
end
equal(r:query("select count(*) as n from head_norms where run_id = :run")[1].n, ROWS * LAYERS * HEADS)
local hidden = r:activations { probe = 2, request = 1 }
local values = r:query "select position, dimension, value from layer_hidden where run_id = :run and layer = 1 order by position, dimension"
equal(#values, #hidden)
for i, row in ipairs(values) do equal(row.value, hidden[i], "a dimension") end
for _, row in ipairs(r:query [[select n.after, sqrt(sum(h.value * h.value)) as length from layer_norms n join layer_hidden h
    on h.run_id = n.run_id and h.request_id = n.request_id and h.position = n.position and h.layer = n.layer
    where n.run_id = :run group by n.position]]) do
  near(row.length, row.after, 1e-4 * row.after, "the norm of what stands there")
end

-- the lens of the last layer says what the model said
local said = r:query [[select t.position, t.token, l.token as lens, l.logprob, t.logprob as own, l.rank from token t
  join layer_lens l on l.run_id = t.run_id and l.request_id = t.request_id and l.position = t.position - 1
  where t.run_id = :run and t.kind = 'output' and l.layer = 1 order by t.position, l.rank]]
equal(#said, 6 * 4)
for i, row in ipairs(said) do
  equal(row.rank, (i - 1) % 4 + 1)
  if row.rank == 1 then
    equal(row.lens, row.token, "greedy")
    near(row.logprob, row.own, 1e-3)
  else
    truth(row.logprob <= said[i - 1].logprob, "likeliest first")
  end
end

-- the softmax of scores is the weights; values are weights times a norm that is the key's own
local pairs_of = r:query [[select w.position, w.layer, w.head, w.key, w.weight, s.weight as score, v.weight as value
  from attention_weights w join attention_weights s on s.run_id = w.run_id and s.request_id = w.request_id and s.position = w.position
       and s.layer = w.layer and s.head = w.head and s.key = w.key and s.measure = 'score'
  join attention_weights v on v.run_id = w.run_id and v.request_id = w.request_id and v.position = w.position
       and v.layer = w.layer and v.head = w.head and v.key = w.key and v.measure = 'value'
  where w.run_id = :run and w.measure = 'weight' order by w.position, w.layer, w.head, w.key]]
equal(#pairs_of, LAYERS * HEADS * ROWS * (ROWS + 1) // 2)
local sums, norm = {}, {}
for _, row in ipairs(pairs_of) do
  local at = ("%d %d %d"):format(row.position, row.layer, row.head)
  sums[at] = (sums[at] or 0) + math.exp(row.score)
end
for _, row in ipairs(pairs_of) do
  near(math.exp(row.score) / sums[("%d %d %d"):format(row.position, row.layer, row.head)], row.weight, 2e-3, "softmax")
  local key = ("%d %d %d"):format(row.layer, row.head, row.key)
  if row.weight > 1e-3 then -- half precision has few digits below
    norm[key] = norm[key] or row.value / row.weight
    near(row.value / row.weight, norm[key], 5e-3 * norm[key], "a key's norm")
  end
end
equal(r:query("select count(*) as n from attention where run_id = :run")[1].n, LAYERS * HEADS * ROWS, "figures are of weights alone")
