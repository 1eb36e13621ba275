-- SPDX-License-Identifier: MIT
-- lathe.attention against plain loops over the packed rows, on the tiny model's own attention.
local attention = require "lathe.attention"
local lathe     = require "lathe"
local support   = dofile(debug.getinfo(1, "S").source:match "^@(.*)/" .. "/support.lua")
local equal, near, truth, fails = support.equal, support.near, support.truth, support.fails

local model <const> = lathe.model "tiny"
local LAYERS <const>, HEADS <const>, LENGTH <const>, BUDGET <const> = 2, 2, 40, 24

-- ── sequences said twice ──────────────────────────────────────────────────────────────────
local sequences = attention.repeated { vocabulary = 256, length = LENGTH, count = 3, seed = 5, first = 10 }
equal(#sequences, 3)
for _, ids in ipairs(sequences) do
  equal(#ids, 2 * LENGTH)
  local seen = {}
  for i = 1, LENGTH do
    truth(not seen[ids[i]] and ids[i] >= 10 and ids[i] < 256, "different tokens, in range")
    seen[ids[i]] = true
    equal(ids[i + LENGTH], ids[i])
  end
end
truth(sequences[1][1] ~= sequences[2][1] or sequences[1][2] ~= sequences[2][2], "other tokens in another")
equal(attention.repeated { vocabulary = 256, length = LENGTH, count = 3, seed = 5, first = 10 }[2][7], sequences[2][7], "the same again")

local function run(more)
  local workload = {}
  for i, ids in ipairs(sequences) do
    workload[i] = { tokens = table.move(ids, 1, LENGTH, 1, {}), forced = table.move(ids, LENGTH + 1, 2 * LENGTH, 1, {}) }
  end
  local d = { model = model, database = "attention.db", workload = workload, trace = { attention = "full", tokens = "all" } }
  for k, v in pairs(more or {}) do d[k] = v end
  return lathe.run(d)
end

-- ── packed rows, unpacked by hand: weights[request][position][layer][head][key] ───────────
local function half(bytes, at)
  local h = ("<I2"):unpack(bytes, at)
  local exponent, mantissa = h >> 10 & 31, h & 1023
  return exponent == 0 and mantissa * 2.0 ^ -24 or (1 + mantissa / 1024) * 2.0 ^ (exponent - 15)
end

local function unpacked(r)
  local weights = {}
  for _, row in ipairs(r:query [[select a.request_id, a.position, a.keys, a.data from attention_token a
    join probe p on p.run_id = a.run_id and p.id = a.probe_id where a.run_id = :run and p.format = 'full']]) do
    weights[row.request_id] = weights[row.request_id] or {}
    local at, here = 1, {}
    for layer = 0, LAYERS - 1 do
      here[layer] = {}
      for head = 0, HEADS - 1 do
        local w = {}
        for key = 0, row.keys - 1 do
          w[key] = half(row.data, at)
          at = at + 2
        end
        here[layer][head] = w
      end
    end
    weights[row.request_id][row.position] = here
  end
  return weights
end

local function means() return { sum = {}, n = {} } end
local function add(m, layer, head, value)
  local k = layer * HEADS + head
  m.sum[k], m.n[k] = (m.sum[k] or 0) + value, (m.n[k] or 0) + 1
end
local function same(rows, column, m, what)
  equal(#rows, LAYERS * HEADS, what)
  for i, row in ipairs(rows) do
    local k = row.layer * HEADS + row.head
    near(row[column], m.sum[k] / m.n[k], 1e-9, what)
    equal(row.queries, m.n[k], what .. ": queries")
    if column == "score" and i > 1 then truth(rows[i - 1].score >= row.score, what .. ": the most first") end
  end
end

local r = run()
local weights = unpacked(r)
local induction, previous, sinks, entropy = means(), means(), means(), means()
for request, ids in ipairs(sequences) do
  for position = 0, 2 * LENGTH - 2 do -- the last token's own row isn't computed
    for layer = 0, LAYERS - 1 do
      for head = 0, HEADS - 1 do
        local w = weights[request][position][layer][head]
        for q = position - 1, 0, -1 do
          if ids[q + 1] == ids[position + 1] then
            add(induction, layer, head, w[q + 1])
            break
          end
        end
        if position > 0 then
          add(previous, layer, head, w[position - 1])
          local h = 0
          for key = 0, position do
            if w[key] > 0 then h = h - w[key] * math.log(w[key]) end
          end
          add(entropy, layer, head, h)
        end
        if position >= 50 then add(sinks, layer, head, w[0]) end
      end
    end
  end
end
same(attention.induction(r), "score", induction, "induction")
same(attention.previous(r), "score", previous, "previous")
same(attention.sinks(r, { from = 50 }), "first_mass", sinks, "sinks")
local uniform = 0
for position = 50, 2 * LENGTH - 2 do uniform = uniform + 1 / (position + 1) / (2 * LENGTH - 51) end
near(attention.sinks(r, { from = 50 })[1].uniform, uniform, 1e-12)
equal(attention.sinks(r, { from = 50, requests = { 2 } })[1].queries, 2 * LENGTH - 51, "one request's")
local depth = attention.depth(r)
equal(#depth, LAYERS)
for _, row in ipairs(depth) do
  local a, b = entropy.sum[row.layer * HEADS] / entropy.n[row.layer * HEADS], entropy.sum[row.layer * HEADS + 1] / entropy.n[row.layer * HEADS]
  near(row.entropy, (a + b) / 2, 1e-6)
  near(row.least, math.min(a, b), 1e-6)
  near(row.most, math.max(a, b), 1e-6)
end

-- ── heads of two runs ─────────────────────────────────────────────────────────────────────
for _, row in ipairs(attention.similarity(r, run())) do
  near(row.divergence, 0, 1e-12, "the same run again")
  near(row.cosine, 1, 1e-12)
  equal(row.queries, 3 * (2 * LENGTH - 1))
end
local changed = run { interventions = { { "head_uniform", layers = { 0 }, heads = { 1 } } } }
local other, divergence, cosine = unpacked(changed), means(), means()
for request in ipairs(sequences) do
  for position = 0, 2 * LENGTH - 2 do
    for layer = 0, LAYERS - 1 do
      for head = 0, HEADS - 1 do
        local p, q = weights[request][position][layer][head], other[request][position][layer][head]
        local d, pp, qq, pq = 0, 0, 0, 0
        for key = 0, position do
          if p[key] > 0 then d = d + p[key] / 2 * math.log(2 * p[key] / (p[key] + q[key])) end
          if q[key] > 0 then d = d + q[key] / 2 * math.log(2 * q[key] / (p[key] + q[key])) end
          pp, qq, pq = pp + p[key] ^ 2, qq + q[key] ^ 2, pq + p[key] * q[key]
        end
        add(divergence, layer, head, math.max(d, 0))
        add(cosine, layer, head, pq / math.sqrt(pp * qq))
      end
    end
  end
end
local alike = attention.similarity(r, changed)
same(alike, "divergence", divergence, "divergence")
same(alike, "cosine", cosine, "cosine")
for _, row in ipairs(alike) do
  if row.layer == 0 and row.head == 0 then near(row.divergence, 0, 1e-12, "what comes before the change is as it was") end
  if row.layer == 0 and row.head == 1 then truth(row.divergence > 1e-6, "what was changed isn't") end
end

-- ── keys that a cache dropped ─────────────────────────────────────────────────────────────
local evicting = run { kvcache = { "sinks", sinks = 2, budget = BUDGET, positions = "original", block_tokens = 4 },
                       trace = { probes = { { format = "top", top_k = BUDGET + 1 } }, tokens = "all" } }
local kept = {}
for _, row in ipairs(evicting:query [[select w.request_id, w.position, w.layer, w.head, w.key from attention_weights w
  where w.run_id = :run and w.keys < w.position + 1]]) do
  local at = ("%d %d %d %d"):format(row.request_id, row.position, row.layer, row.head)
  kept[at] = kept[at] or {}
  kept[at][row.key] = true
end
local missing = means()
for at, keys in pairs(kept) do
  local request, position, layer, head = at:match "(%d+) (%d+) (%d+) (%d+)"
  local w, mass, count = weights[tonumber(request)][tonumber(position)][tonumber(layer)][tonumber(head)], 0, 0
  for key in pairs(keys) do mass, count = mass + w[key], count + 1 end
  truth(count <= BUDGET + 1 and keys[0] and keys[1] and keys[tonumber(position)], "sinks, and itself")
  add(missing, tonumber(layer), tonumber(head), math.max(0, 1 - mass))
end
local evicted = attention.evicted(evicting, r)
same(evicted, "evicted_mass", missing, "evicted mass")
truth(evicted[1].evicted_keys > 1 and evicted[1].most >= evicted[1].evicted_mass, "more than one key")

-- ── removing heads ────────────────────────────────────────────────────────────────────────
local removal = attention.remove { { layer = 1, head = 1 }, { layer = 0, head = 1 }, { layer = 1, head = 0 } }
equal(#removal, 2)
equal(removal[1][1], "head_scale")
equal(removal[1].layers[1], 0)
equal(table.concat(removal[2].heads, " "), "0 1")
equal(attention.remove({ { layer = 1, head = 1 } }, "uniform")[1][1], "head_uniform")
truth(math.abs(run { interventions = removal }:perplexity() - r:perplexity()) > 1e-6, "removed")
equal(#attention.remove {}, 0)

-- ── sentences ─────────────────────────────────────────────────────────────────────────────
fails(function() attention.sinks(5) end, "takes a run", "5")
fails(function() attention.sinks(r, { form = 3 }) end, "\"form\"", "\"from\"")
fails(function() attention.sinks(r, { from = 500 }) end, "has no rows for it", "from 500 on")
fails(function() attention.sinks(r, { requests = { 1.5 } }) end, "whole number")
fails(function() attention.induction(run { trace = { tokens = "all" } }) end, "attention.induction: run", "\"full\"")
fails(function() attention.previous(run { trace = { attention = "summary" } }) end, "attention.previous")
fails(function() attention.similarity(r, 7) end, "takes a run")
fails(function() attention.similarity(r, run { database = "elsewhere.db" }) end, "two databases", "lathe merge")
fails(function() attention.evicted(r, evicting) end, "attention.evicted", "format top")
fails(function() attention.repeated { vocabulary = 10, length = 20 } end, "\"length\"", "2 to 10")
fails(function() attention.remove(3) end, "array of heads")
fails(function() attention.remove({ { layer = 1 } }) end, "\"head\"")
fails(function() attention.remove({}, "mean") end, "\"uniform\"")
