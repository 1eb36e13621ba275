-- What do keys and values kept in half precision or eight bits cost, and what do they save?
-- SPDX-License-Identifier: MIT
--
-- The same texts, given token by token, with keys and values kept as f32, f16 and q8_0 (32 numbers with a scale in half precision:
-- 34 bytes instead of 128). Beside perplexity, which averages: how far each token's log-probability moves, and how long free
-- answers stay the same as with f32.
--
--   lathe run experiments/quantized_kv.lua
--   lathe run experiments/quantized_kv.lua -- --full      ten texts of 2,048 tokens; half an hour
local lathe = require "lathe"
local stats = require "lathe.stats"
local texts = require "kv.texts"

local TOKENS <const> = [[select request_id, token, logprob, gap_ns from token
                        where run_id = :run and kind = 'output' order by request_id, position]]
local DTYPES <const> = { "f32", "f16", "q8_0" }
local BYTES <const> = { f32 = 4, f16 = 2, q8_0 = 34 / 32 }

local function run(o, s, dtype, workload, label)
  return lathe.run { model = s.model, kvcache = { "paged", dtype = dtype }, workload = workload, seed = o.seed, label = label,
                     factors = { dtype = dtype }, trace = { tokens = "output" },
                     engine = { threads = o.threads > 0 and o.threads or nil, context_tokens = o.tokens + o.answer + 1,
                                max_requests = #workload, batch_requests = #workload } }
end

local function measure(o, s, dtype, round)
  local given, free = {}, {}
  for i, t in ipairs(s.texts) do
    given[i] = texts.given(t.ids)
    free[i] = { tokens = table.move(t.ids, 1, o.tokens // 2, 1, {}), output_tokens = o.answer }
  end
  local f = { logs = {}, logprobs = {}, gaps = {}, said = {} }
  do
    local r <close> = run(o, s, dtype, given, ("%s, round %d"):format(dtype, round))
    for i in ipairs(s.texts) do f.logs[i] = math.log(r:perplexity(i)) end
    for _, row in ipairs(r:query(TOKENS)) do
      f.logprobs[#f.logprobs + 1] = row.logprob
      if row.gap_ns then f.gaps[#f.gaps + 1] = row.gap_ns / 1e6 end
    end
  end
  do
    local r <close> = run(o, s, dtype, free, ("%s, answers, round %d"):format(dtype, round))
    local of, last
    for _, row in ipairs(r:query(TOKENS)) do
      if row.request_id ~= last then of, last = {}, row.request_id; f.said[#f.said + 1] = of end
      of[#of + 1] = row.token
    end
  end
  return f
end

local function shared(a, b)
  local n = 0
  while n < #a and a[n + 1] == b[n + 1] do n = n + 1 end
  return 100 * n / #a
end

return {
  options = {
    model   = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    folder  = { default = "../tests/data/texts", help = "where the texts lie" },
    texts   = { default = 4, help = "how many of them", min = 2, max = texts.count },
    tokens  = { default = 192, help = "of each text", unit = "tokens", min = 16, max = 2048 },
    answer  = { default = 24, help = "of the free answers, which go on from half a text", unit = "tokens", min = 1, max = 512 },
    rounds  = { default = 3, help = "of all three in turn, for the time", min = 1, max = 50 },
    threads = { default = 0, help = "of the model; 0: its own option", min = 0, max = 64 },
    seed    = { default = 1, help = "of the runs", min = 0 },
    full    = { default = false, help = "ten texts of 2,048 tokens" },
  },

  prepare = function(o)
    if o.full then o.texts, o.tokens, o.answer = texts.count, 2048, 64 end
    local model = lathe.model { "llama", path = o.model, compute = "exact" } -- int8's own rounding would hide that of keys
    return { model = model, texts = texts.read(model, o.folder, o.texts, o.tokens) }
  end,

  run = function(o, s)
    local found = { bytes = s.model:info().kv_bytes_per_token }
    for round = 1, o.rounds do
      for n = 1, #DTYPES do
        local dtype = DTYPES[(n + round) % #DTYPES + 1] -- in turn, so that a drift of the machine falls on all
        local f = measure(o, s, dtype, round)
        if found[dtype] then
          found[dtype].times[round] = stats.median(f.gaps)
        else
          f.times = {}
          f.times[round] = stats.median(f.gaps)
          found[dtype] = f
        end
      end
    end
    return found
  end,

  report = function(o, found)
    local rows, base, sentence = {}, found.f32, {}
    for i, dtype in ipairs(DTYPES) do
      local f, moved, same, speed = found[dtype], {}, {}, {}
      for k, v in ipairs(f.logprobs) do moved[k] = math.abs(v - base.logprobs[k]) end
      for k, said in ipairs(f.said) do same[k] = shared(base.said[k], said) end
      for k, v in ipairs(f.times) do speed[k] = v / base.times[k] end
      local d = stats.paired_ci(f.logs, base.logs)
      rows[i] = { dtype = dtype, kib = found.bytes / 4 * BYTES[dtype] / 1024,
                  times = math.exp(d.value), low = math.exp(d.low), high = math.exp(d.high),
                  moved = stats.mean(moved), worst = stats.max(moved), same = stats.mean(same),
                  gap = stats.median(f.times), speed = stats.median(speed) }
      if i > 1 then
        sentence[#sentence + 1] = ("%s takes %.0f%% of the memory at %.4f × the perplexity (95%% interval %.4f to %.4f)")
          :format(dtype, 100 * BYTES[dtype] / 4, rows[i].times, rows[i].low, rows[i].high)
      end
    end
    print(("\n%d texts of %d tokens, perplexity with f32 %.3f; free answers of %d tokens; %d rounds in turn:\n")
      :format(#base.logs, o.tokens, math.exp(stats.mean(base.logs)), o.answer, o.rounds))
    lathe.print(rows, { { "dtype", "kept as" }, { "kib", "KiB a position", "%.2f" }, { "times", "perplexity ×", "%.5f" },
      { "low", "95% from", "%.5f" }, { "high", "to", "%.5f" }, { "moved", "mean |Δ ln p|", "%.5f" },
      { "worst", "largest", "%.4f" }, { "same", "% same answer", "%.0f" },
      { "gap", "token gap ms", "%.2f" }, { "speed", "× f32's", "%.3f" } })
    print("\nWhat was found: " .. table.concat(sentence, "; ") .. ".")
    print("What would change this: longer contexts (reading keys and values is then most of a step, fewer bytes are quicker),\n" ..
          "models whose keys have a few huge components (one scale for 32 numbers drowns the others), fewer bits.")
  end,
}
