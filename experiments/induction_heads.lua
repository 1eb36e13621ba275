-- Which heads find what came before, and does the model lean on them when a text repeats itself?
-- SPDX-License-Identifier: MIT
--
-- Random tokens said twice: nothing but the repetition can be predicted, so the loss on the second half is what copying brings.
-- Induction heads (Olsson et al. 2022) look from a token to the one after its previous occurrence; one SQL view finds them. Then
-- they are removed (their output 0, or the mean of the values that they could have looked at), and as many random heads of the
-- same layers instead, which copy little; the loss on both halves is compared sequence by sequence.
--
--   lathe run experiments/induction_heads.lua
--   lathe run experiments/induction_heads.lua -- --full                                     50 sequences of 64 tokens; a quarter of an hour
--   lathe run experiments/induction_heads.lua -- --golden ../tests/data/golden_heads.json   beside the reference's scores
local lathe     = require "lathe"
local attention = require "lathe.attention"
local stats     = require "lathe.stats"
local random    = require "lathe.random"

local SPECIAL <const> = 17 -- SmolLM2's ids below are special tokens
local TIE <const>, WITHIN <const>, TOP <const> = 0.02, 0.01, 10 -- what the reference is held to

local function golden_of(path)
  local file = io.open(path) or io.open((lathe.script:match "^(.*/)" or "./") .. path)
  if not file then error(("there is no %s: tests/data/make_heads_golden.py makes it"):format(path), 0) end
  local golden = lathe.json.decode(file:read "a")
  file:close()
  return golden
end

local function engine(o, requests)
  return { threads = o.threads > 0 and o.threads or nil, max_requests = requests, batch_requests = requests,
           context_tokens = 2 * o.length + 8 }
end

-- Every sequence once, the second half's weights recorded.
local function find(o, s)
  local workload = {}
  for i, ids in ipairs(s.sequences) do workload[i] = { tokens = ids, output_tokens = 1 } end
  local r <close> = lathe.run { model = s.model, workload = workload, seed = o.seed, label = "find", engine = engine(o, #workload),
    trace = { attention = { format = "full", positions = { o.length, 2 * o.length - 1 } }, tokens = "all" } }
  return attention.induction(r)
end

-- Mean loss of each sequence on both halves, token by token. The second half's first token can't be known.
local function losses(o, s, label, interventions)
  local workload = {}
  for i = 1, o.ablated do
    local ids = s.sequences[i]
    workload[i] = { tokens = { ids[1] }, forced = table.move(ids, 2, #ids, 1, {}) }
  end
  local r <close> = lathe.run { model = s.model, workload = workload, seed = o.seed, label = label, interventions = interventions,
    engine = engine(o, #workload), trace = { tokens = "output" } }
  local function half(condition)
    return stats.column(r:query(([[select avg(-logprob) as loss from token where run_id = :run and kind = 'output' and position %s
      group by request_id order by request_id]]):format(condition)), "loss")
  end
  return { first = half(("< %d"):format(o.length)), second = half(("> %d"):format(o.length)) }
end

-- As many others of the same layers, none of them among the better half of scores.
local function others(o, found, chosen, draw)
  local score, taken, list, heads = {}, {}, {}, 0
  for _, h in ipairs(found) do
    score[h.layer << 8 | h.head] = h.score
    heads = math.max(heads, h.head + 1)
  end
  for _, h in ipairs(chosen) do taken[h.layer << 8 | h.head] = true end
  for i, h in ipairs(chosen) do
    local free = {}
    for head = 0, heads - 1 do
      local at = h.layer << 8 | head
      if not taken[at] and score[at] <= o.least then free[#free + 1] = head end
    end
    if #free == 0 then error(("layer %d has no head left with a score of at most %.2f: say more with -- --least, or fewer --heads")
      :format(h.layer, o.least), 0) end
    local head = free[1 + math.floor(random.unit(o.seed, random.USER, draw, i) * #free)]
    taken[h.layer << 8 | head] = true
    list[i] = { layer = h.layer, head = head }
  end
  return list
end

local function minus(a, b)
  local d = {}
  for i = 1, #a do d[i] = a[i] - b[i] end
  return d
end

local function mean_of(lists)
  local m = {}
  for i = 1, #lists[1] do
    local sum = 0
    for _, list in ipairs(lists) do sum = sum + list[i] end
    m[i] = sum / #lists
  end
  return m
end

local function interval(values)
  local d = stats.mean_ci(values)
  return ("%+.3f (%+.3f to %+.3f)"):format(d.value, d.low, d.high), d
end

-- How far the scores are from the reference's, and whether the best are the same up to ties.
local function agreement(found, golden)
  local worst, least = 0, golden.top[TOP][3]
  local missed = 0
  for i, h in ipairs(found) do
    local theirs = golden.induction[h.layer + 1][h.head + 1]
    worst = math.max(worst, math.abs(h.score - theirs))
    if i <= TOP and theirs < least - TIE then missed = missed + 1 end
  end
  return worst, missed
end

local function report_removal(o, found)
  print(("\nLoss of the whole model, nats a token: %.2f on the first half, %.2f on the second (%d sequences).\n" ..
    "It rises, when heads are removed, by (95%% intervals):\n")
    :format(stats.mean(found.whole.first), stats.mean(found.whole.second), o.ablated))
  local table_rows, sentences = {}, {}
  for _, how in ipairs { "zero", "uniform" } do
    local f, name = found.rise[how], how == "zero" and "output 0" or "mean of values"
    local excess, d = interval(minus(f.second, f.other_second))
    local first, e = interval(minus(f.first, f.other_first))
    table_rows[#table_rows + 1] = { how = name, heads = "induction", first = (interval(f.first)), second = (interval(f.second)) }
    table_rows[#table_rows + 1] = { how = name, heads = "random", first = (interval(f.other_first)), second = (interval(f.other_second)) }
    table_rows[#table_rows + 1] = { how = name, heads = "difference", first = first, second = excess }
    sentences[#sentences + 1] = ("with %s the loss on the second half rises by %.2f nats more than with random heads (95%% interval\n" ..
      "%.2f to %.2f)%s, on the first half by %.2f (%.2f to %.2f)"):format(name, d.value, d.low, d.high,
      d.low > 0 and "" or ", which this run can't tell from nothing", e.value, e.low, e.high)
  end
  lathe.print(table_rows, { { "how", "removed to" }, "heads", { "first", "first half" }, { "second", "second half" } })
  print("\nWhat was found: " .. table.concat(sentences, ";\n") .. ".")
end

return {
  options = {
    model     = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    sequences = { default = 8, help = "that heads are found on", min = 2, max = 200 },
    length    = { default = 32, help = "of each half", unit = "tokens", min = 4, max = 512 },
    ablated   = { default = 6, help = "sequences that the loss is measured on, from 3; 0: heads are only found", min = 0, max = 200 },
    heads     = { default = 6, help = "how many are removed", min = 1, max = 32 },
    least     = { default = 0.1, help = "the greatest score of a random head", min = 0, max = 1 },
    draws     = { default = 2, help = "of random heads", min = 1, max = 20 },
    golden    = { default = "", help = "the reference's scores, whose sequences are then taken" },
    threads   = { default = 0, help = "of the model; 0: its own option", min = 0, max = 64 },
    seed      = { default = 1, help = "of sequences and of random heads", min = 0 },
    full      = { default = false, help = "50 sequences of 64 tokens" },
  },

  prepare = function(o)
    if o.full then o.sequences, o.length, o.ablated, o.draws = 50, 64, 50, 3 end
    local s = { model = lathe.model { "llama", path = o.model } }
    if o.golden ~= "" then
      s.golden, s.sequences = golden_of(o.golden), {}
      for i, ids in ipairs(s.golden.sequences) do
        s.sequences[i] = table.move(ids, 1, #ids, #ids + 1, table.move(ids, 1, #ids, 1, {}))
      end
      o.length = #s.golden.sequences[1]
    else
      s.sequences = attention.repeated { vocabulary = s.model:info().vocab_tokens, first = SPECIAL, length = o.length,
                                         count = math.max(o.sequences, o.ablated), seed = o.seed }
    end
    o.sequences, o.ablated = #s.sequences, math.min(o.ablated, #s.sequences)
    if o.ablated == 1 or o.ablated == 2 then error("an interval needs three sequences: say more with -- --ablated", 0) end
    return s
  end,

  run = function(o, s)
    local found = { heads = find(o, s), rise = {} }
    found.chosen = table.move(found.heads, 1, o.heads, 1, {})
    if o.ablated == 0 then return found end
    found.whole = losses(o, s, "whole")
    local drawn = {}
    for draw = 1, o.draws do drawn[draw] = others(o, found.heads, found.chosen, draw) end
    for _, how in ipairs { "zero", "uniform" } do
      local rise = { first = {}, second = {} }
      local function measure(label, heads, into)
        local f = losses(o, s, ("%s, %s"):format(label, how), attention.remove(heads, how))
        for half, list in pairs(f) do table.insert(into[half], minus(list, found.whole[half])) end
      end
      local own = { first = {}, second = {} }
      measure("induction heads", found.chosen, own)
      for draw = 1, o.draws do measure(("random heads %d"):format(draw), drawn[draw], rise) end
      found.rise[how] = { first = own.first[1], second = own.second[1],
                          other_first = mean_of(rise.first), other_second = mean_of(rise.second) }
    end
    return found
  end,

  report = function(o, found, s)
    local rows = {}
    for i = 1, math.min(TOP, #found.heads) do
      local h = found.heads[i]
      rows[i] = { layer = h.layer, head = h.head, score = h.score, removed = i <= o.heads and o.ablated > 0 and "removed" or "" }
    end
    print(("\n%d sequences of %d random tokens said twice; mean weight on the token after the previous occurrence:\n")
      :format(o.sequences, o.length))
    lathe.print(rows, { "layer", "head", { "score", "score", "%.3f" }, { "removed", "" } })
    if o.ablated > 0 then report_removal(o, found) end
    if s.golden then
      local worst, missed = agreement(found.heads, s.golden)
      print(("\nAgainst the reference: scores differ by at most %.4f (%s %.2f); of the best %d, %d are not its own up to ties of %.2f.")
        :format(worst, worst <= WITHIN and "within" or "NOT within", WITHIN, TOP, missed, TIE))
    end
    print("What would change this: texts, where other heads predict what these would have copied; more heads removed (others take over\n" ..
          "what a few did: redundancy hides a head's part); and a model without induction heads, of one layer.")
  end,
}
