-- Why was this token late, and was what it looked at any different?
-- SPDX-License-Identifier: MIT
--
-- Latency and attention of the same tokens, joined in SQL. Chats are answered while long prompts arrive now and then, which the
-- steps that they join wait for. For each answer's slowest token: the step, who joined it, and what its query's heads looked at,
-- beside the request's usual. A slow token should be slow for its company's sake, not its own: its attention should be as ever.
--
--   lathe run experiments/what_did_the_slow_token_see.lua
--   lathe run experiments/what_did_the_slow_token_see.lua -- --batching chunked     long prompts in pieces
local lathe    = require "lathe"
local random   = require "lathe.random"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local SLOW <const>, NEAR <const>, SHOWN <const> = 0.1, 4, 6 -- the slowest tenth of gaps

-- A row a token of a chat that has a gap: the gap, whose company its step had, and means over all heads of its query.
local TOKENS <const> = [[
  with seen as (
    select run_id, request_id, position + 1 as position, avg(entropy) as entropy, avg(first_mass) as first_mass
      from attention where run_id = :run group by run_id, request_id, position)
  select t.request_id, t.position, t.gap_ns / 1e6 as gap_ms, s.prefill_tokens, s.requests, n.entropy, n.first_mass
    from token t join step s on s.run_id = t.run_id and s.id = t.step_id
    join seen n on n.run_id = t.run_id and n.request_id = t.request_id and n.position = t.position
    join request q on q.run_id = t.run_id and q.id = t.request_id and q.class is null
   where t.run_id = :run and t.gap_ns is not null order by t.gap_ns desc]]

-- Slow tokens less the others within NEAR positions of the same answer, since entropy grows with the position; a mean a request.
local function differences(rows, slow, name)
  local at, of, list = {}, {}, {}
  for i, row in ipairs(rows) do
    at[row.request_id] = at[row.request_id] or {}
    at[row.request_id][row.position] = { slow = i <= slow, value = row[name] }
  end
  for i = 1, slow do
    local row, near = rows[i], {}
    for position = row.position - NEAR, row.position + NEAR do
      local other = at[row.request_id][position]
      if other and not other.slow then near[#near + 1] = other.value end
    end
    of[row.request_id] = of[row.request_id] or {}
    if #near > 0 then table.insert(of[row.request_id], row[name] - stats.mean(near)) end
  end
  for _, values in pairs(of) do
    if #values > 0 then list[#list + 1] = stats.mean(values) end
  end
  table.sort(list) -- pairs has no order, and sums should be the same again
  return list
end

local function shown(text) return ("\"%s\""):format((text or "?"):gsub("%c", "⏎")) end

return {
  options = {
    model    = { default = "smollm2-135m", help = "the model, a short name or a GGUF file" },
    batching = { default = "continuous", help = "how steps are filled" },
    chats    = { default = 10, help = "requests", min = 3 },
    tokens   = { default = 24, help = "of each answer", unit = "tokens", min = 4, max = 256 },
    rate     = { default = 3.0, help = "arrivals of chats", unit = "requests/s", min = 0.01 },
    long     = { default = 256, help = "of a long prompt", unit = "tokens", min = 16, max = 4096 },
    every    = { default = 1.5, help = "between long prompts", unit = "s", min = 0.05 },
    threads  = { default = 0, help = "of the model; 0: its own option", min = 0, max = 64 },
    seed     = { default = 1, help = "of arrivals", min = 0 },
  },

  prepare = function(o)
    local load, prompts, at = {}, workload.prompts "data/prompts.txt", 0
    for i = 1, o.chats do -- a Poisson process
      at = at + random.exponential(o.seed, random.USER, 0, i) / o.rate
      load[i] = { at = at, messages = { { role = "user", content = prompts[(i - 1) % #prompts + 1] } }, output_tokens = o.tokens }
    end
    for i = 1, math.max(2, math.floor(at / o.every)) do
      load[#load + 1] = { at = i * o.every, prompt_tokens = o.long, output_tokens = 2, class = "long" }
    end
    table.sort(load, function(a, b) return a.at < b.at end)
    return { model = lathe.model { "llama", path = o.model }, load = load }
  end,

  run = function(o, s)
    local r <close> = lathe.run { model = s.model, batching = o.batching, workload = s.load, seed = o.seed, label = o.batching,
      engine = { threads = o.threads > 0 and o.threads or nil }, trace = { attention = "summary", tokens = "all" } }
    local rows, whole = r:query(TOKENS), r:query [[select v.* from what_did_the_slow_token_see v
      join request q on q.run_id = v.run_id and q.id = v.request_id and q.class is null
      where v.run_id = :run and v.entropy is not null order by v.gap_ms desc]]
    for _, row in ipairs(whole) do
      local joined = r:query([[select company_id, tokens from slow_token_company
        where run_id = :run and request_id = ? and position = ? and phase = 'prefill' order by tokens desc]],
        row.request_id, row.position)[1]
      row.company = joined and ("request %d, %d of its prompt"):format(joined.company_id, joined.tokens) or "nobody"
      row.text, row.looked_at = shown(row.text), shown(row.looked_at)
    end
    return { rows = rows, whole = whole }
  end,

  report = function(o, found)
    local rows = found.rows
    local slow, joined, others = math.max(1, math.floor(SLOW * #rows)), 0, 0
    for i, row in ipairs(rows) do
      local with = row.prefill_tokens > 0
      if i <= slow then joined = joined + (with and 1 or 0) else others = others + (with and 1 or 0) end
    end
    print(("\n%d chats of %d tokens, a prompt of %d tokens every %g s, %s batching. The slowest token of each answer:\n")
      :format(o.chats, o.tokens, o.long, o.every, o.batching))
    lathe.print(table.move(found.whole, 1, math.min(SHOWN, #found.whole), 1, {}), { { "request_id", "request" }, "position", "text",
      { "gap_ms", "gap ms", "%.0f" }, { "usual_gap_ms", "usual", "%.0f" }, { "company", "joined in its step by" },
      { "looked_at", "looked at" }, { "entropy", "entropy", "%.2f" }, { "usual_entropy", "usual", "%.2f" } })
    print(("\nWhat was found: of the slowest tenth of %d gaps %.0f%% had a prompt in their step, of the others %.0f%%.")
      :format(#rows, 100 * joined / slow, 100 * others / math.max(1, #rows - slow)))
    for _, figure in ipairs { { "entropy", "entropy (nats)" }, { "first_mass", "mass on the first token" } } do
      local list = differences(rows, slow, figure[1])
      if #list < 3 then
        print(("Too few answers have slow tokens with others around them to compare their %s."):format(figure[2]))
      else
        local d = stats.mean_ci(list)
        print(("The mean %s of slow tokens is %+.3f beside that of the tokens around them (95%% interval %+.3f to %+.3f)%s.")
          :format(figure[2], d.value, d.low, d.high, d.low <= 0 and d.high >= 0 and ":\nnothing that this run can tell from zero" or ""))
      end
    end
    print("What would change this: a cache that evicts (a query then sees fewer keys, sooner or later), attention whose cost hangs\n" ..
          "on what it looks at (sparse attention), and batching in pieces, which leaves no token much slower than others.")
  end,
}
