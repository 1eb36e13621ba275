-- Do heads park their weight on the first token, whatever it is, and does the model need it?
-- SPDX-License-Identifier: MIT
--
-- Attention sinks (Xiao et al. 2024): many heads give most of their weight to the first token, though it says little. Texts are
-- read as they are and with a special token in front; for each head the mean mass on the first token over queries from 64 on,
-- against the uniform 1 / (i + 1). Then the texts go on, the first key hidden from all queries that follow, or another one
-- instead, and what that costs in perplexity tells what the first is for.
--
--   lathe run experiments/attention_sinks.lua
--   lathe run experiments/attention_sinks.lua -- --full        ten texts of 256 tokens
local lathe     = require "lathe"
local attention = require "lathe.attention"
local stats     = require "lathe.stats"
local texts     = require "kv.texts"

local FROM <const>, SHOWN <const> = 64, 8

local function engine(o, requests)
  return { threads = o.threads > 0 and o.threads or nil, max_requests = requests, batch_requests = requests,
           context_tokens = o.tokens + 16 }
end

-- Summaries of all heads; the mean over heads of each text, and a row a head over all texts.
local function look(o, s, label, special)
  local workload = {}
  for i, t in ipairs(s.texts) do
    local ids = special and table.move(t.ids, 1, o.tokens - 1, 2, { o.special }) or t.ids
    workload[i] = { tokens = ids, output_tokens = 1 }
  end
  local r <close> = lathe.run { model = s.model, workload = workload, seed = o.seed, label = label, factors = { special = special },
    engine = engine(o, #workload), trace = { attention = { format = "summary", positions = { FROM } }, tokens = "all" } }
  local each = {}
  for i in ipairs(s.texts) do each[i] = stats.mean(stats.column(attention.sinks(r, { from = FROM, requests = { i } }), "first_mass")) end
  return { heads = attention.sinks(r, { from = FROM }), texts = each }
end

-- Perplexity's logarithm of each text's last part, with the keys hidden.
local function going_on(o, s, label, keys)
  local workload, logs = {}, {}
  local from = o.tokens - o.answer
  for i, t in ipairs(s.texts) do
    workload[i] = { tokens = table.move(t.ids, 1, from, 1, {}), forced = table.move(t.ids, from + 1, o.tokens, 1, {}) }
  end
  local r <close> = lathe.run { model = s.model, workload = workload, seed = o.seed, label = label, engine = engine(o, #workload),
    trace = { tokens = "output" }, interventions = keys and { { "keys_drop", keys = keys, positions = { from - 1 } } } }
  for i in ipairs(s.texts) do logs[i] = math.log(r:perplexity(i)) end
  return logs
end

return {
  options = {
    model   = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    folder  = { default = "../tests/data/texts", help = "where the texts lie" },
    texts   = { default = 5, help = "how many of them", min = 3, max = texts.count },
    tokens  = { default = 144, help = "of each text", unit = "tokens", min = FROM + 34, max = 2048 },
    answer  = { default = 32, help = "of them that follow with keys hidden", unit = "tokens", min = 2, max = 1024 },
    special = { default = 1, help = "id of the special token (SmolLM2's <|im_start|>)", min = 0 },
    other   = { default = 5, help = "position of the key that is hidden instead of the first", min = 1 },
    threads = { default = 0, help = "of the model; 0: its own option", min = 0, max = 64 },
    seed    = { default = 1, help = "of the runs", min = 0 },
    full    = { default = false, help = "ten texts of 256 tokens" },
  },

  prepare = function(o)
    if o.full then o.texts, o.tokens, o.answer = texts.count, 256, 64 end
    if o.answer > o.tokens - 2 or o.other >= o.tokens - o.answer - 1 then
      error("the hidden key and the part that follows must lie within the text: say fewer with -- --answer or --other", 0)
    end
    local model = lathe.model { "llama", path = o.model }
    return { model = model, texts = texts.read(model, o.folder, o.texts, o.tokens) }
  end,

  run = function(o, s)
    return { plain = look(o, s, "plain", false), special = look(o, s, "special token in front", true),
             whole = going_on(o, s, "whole"), first = going_on(o, s, "first hidden", { 0 }),
             other = going_on(o, s, ("key %d hidden"):format(o.other), { o.other }) }
  end,

  report = function(o, found)
    local special, rows, over = {}, {}, { plain = 0, special = 0 }
    for _, h in ipairs(found.special.heads) do
      special[h.layer << 8 | h.head] = h.first_mass
      if h.first_mass > 0.5 then over.special = over.special + 1 end
    end
    for i, h in ipairs(found.plain.heads) do
      if h.first_mass > 0.5 then over.plain = over.plain + 1 end
      if i <= SHOWN then
        rows[i] = { layer = h.layer, head = h.head, mass = h.first_mass, special = special[h.layer << 8 | h.head],
                    times = h.times_uniform, entropy = h.entropy }
      end
    end
    print(("\n%d texts of %d tokens; mean mass on the first token over queries from %d on, the most sink-like heads:\n")
      :format(o.texts, o.tokens, FROM))
    lathe.print(rows, { "layer", "head", { "mass", "mass", "%.3f" }, { "times", "× uniform", "%.0f" },
                        { "special", "with special token", "%.3f" }, { "entropy", "entropy", "%.2f" } })
    local count = #found.plain.heads
    local plain, with = stats.mean_ci(found.plain.texts), stats.mean_ci(found.special.texts)
    local differ = stats.paired_ci(found.special.texts, found.plain.texts)
    local first, other = stats.paired_ci(found.first, found.whole), stats.paired_ci(found.other, found.whole)
    local uniform = found.plain.heads[1].uniform
    print(("\nWhat was found: over all %d heads the first token gets %.2f of the weight (95%% interval over texts %.2f to %.2f),\n" ..
           "%.0f × the uniform %.4f; %d heads give it more than half. With a special token in front it is %.2f (%.2f to %.2f),\n" ..
           "%d heads: a difference of %+.3f (%+.3f to %+.3f).")
      :format(count, plain.value, plain.low, plain.high, plain.value / uniform, uniform, over.plain, with.value, with.low, with.high,
        over.special, differ.value, differ.low, differ.high))
    print(("Hiding the first key from the %d tokens that follow makes their perplexity %.2f × (%.2f to %.2f), hiding key %d\n" ..
           "instead %.3f × (%.3f to %.3f)%s")
      :format(o.answer, math.exp(first.value), math.exp(first.low), math.exp(first.high), o.other, math.exp(other.value),
        math.exp(other.low), math.exp(other.high), first.low > math.max(0, other.value)
          and ": the model needs its first place more than that one." or ": this run can't tell whether the first is needed more."))
    print("What would change this: models trained with a sink of their own (a bias in the softmax's sum, or gates), which need\n" ..
          "no first token, and texts whose first token matters, a table's heading, say.")
  end,
}
