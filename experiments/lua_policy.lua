-- How much slower is a scheduler in fifteen lines of Lua than its C twin, and does it decide the same?
-- SPDX-License-Identifier: MIT
--
-- The same requests meet shortest-job-first three times: written in C; in Lua as a key, which is
-- asked once a request and sorted by in C; and in Lua altogether, the whole line sorted in each
-- step. They take turns within each round. What the engine computed in each step (rows of
-- step_request) is compared row by row, and what a step cost is schedule_ns of table step: ranking
-- and filling, so that what is added to the C twin's figure is Lua's.
--
-- All requests are there at once, unless --rate says otherwise: then the steps don't hang on when
-- anything happened, and equal decisions are equal rows on a real clock, too. Under a virtual clock
-- they are with any rate.
--
--   lathe run experiments/lua_policy.lua
--   lathe run experiments/lua_policy.lua -- --requests 1000 --rounds 3
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local WAYS <const> = {
  { name = "C",                  scheduler = "sjf" },
  { name = "Lua, a key",         scheduler = lathe.policy "policies/sjf.lua", file = "policies/sjf.lua" },
  { name = "Lua, whole ranking", scheduler = lathe.policy "policies/sjf_rank.lua", file = "policies/sjf_rank.lua" },
}

-- The policy without its opening comment.
local function lines_of(file)
  local path, list = lathe.policy(file).file, {}
  for line in io.lines(path) do
    if #list > 0 or not line:match "^%-%-" then list[#list + 1] = line end
  end
  return list
end

local COLUMNS <const> = "step_id, request_id, phase, first_position, tokens, context"

-- → rows that only one of the two runs has
local function differing(a, b)
  local n = 0
  for _, pair in ipairs { { a, b }, { b, a } } do
    n = n + a:query(([[
      select count(*) as n from (select %s from step_request where run_id = %d
                                 except select %s from step_request where run_id = %d)]])
      :format(COLUMNS, pair[1].id, COLUMNS, pair[2].id))[1].n
  end
  return n
end

-- The share of places in the order of first tokens that hold the same request.
local function same_places(a, b)
  local sql <const>, same = "select id from request where run_id = :run order by first_token_ns, id", 0
  local of_a, of_b = a:query(sql), b:query(sql)
  for i = 1, #of_a do same = same + (of_a[i].id == of_b[i].id and 1 or 0) end
  return same / #of_a
end

return {
  options = {
    model    = { default = "tiny", help = "the model: tiny, a short name or a GGUF file" },
    clock    = { default = "real", help = "the clock of the runs" },
    requests = { default = 300, help = "how many", min = 10 },
    rate     = { default = 0.0, help = "arrivals; 0: all are there at once", unit = "requests/s", min = 0 },
    batch    = { default = 8, help = "requests in a step at most", min = 1 },
    rounds   = { default = 5, help = "rounds in turn", min = 3 },
    seed     = { default = 1, help = "of lengths and arrivals", min = 0 },
  },

  prepare = function(o)
    local lengths = { requests = o.requests, seed = o.seed, predicted = true,
                      prompt = workload.lognormal { median = 16, sigma = 0.8, min = 1, max = 128 },
                      output = workload.lognormal { median = 8, sigma = 0.8, min = 1, max = 64 } }
    if o.rate > 0 then lengths.rate = o.rate else lengths.size, lengths.every = o.requests, 0 end
    local named = o.model == "tiny" or o.model == "sim"
    return { model = lathe.model(named and { o.model } or { "llama", path = o.model }),
             load = (o.rate > 0 and workload.poisson or workload.burst)(lengths) }
  end,

  run = function(o, s)
    local found = { differ = 0, rows = 0, places = 1 }
    for i = 1, #WAYS do found[i] = { medians = {}, all = {} } end
    for round = 0, o.rounds do -- round 0 warms up
      local runs = {}
      for k = 1, #WAYS do
        local i = (k + round) % #WAYS + 1
        runs[i] = lathe.run { model = s.model, scheduler = WAYS[i].scheduler, clock = o.clock ~= "real" and o.clock or nil,
                              engine = { batch_requests = o.batch, max_requests = o.requests }, workload = s.load, seed = o.seed,
                              label = WAYS[i].name, factors = { scheduler = WAYS[i].name }, trace = { tokens = "output" } }
      end
      for i, r in ipairs(runs) do
        local ns = stats.column(r:query "select schedule_ns from step where run_id = :run", "schedule_ns")
        if round > 0 then
          found[i].medians[round] = stats.median(ns) / 1e3
          table.move(ns, 1, #ns, #found[i].all + 1, found[i].all)
        end
        found.differ = found.differ + (i > 1 and differing(runs[1], r) or 0)
        found.places = math.min(found.places, i > 1 and same_places(runs[1], r) or 1)
      end
      found.rows = found.rows + runs[1]:query "select count(*) as n from step_request where run_id = :run"[1].n
      found.waiting = runs[1]:query "select avg(waiting) as n from step where run_id = :run"[1].n
    end
    return found
  end,

  report = function(o, found)
    local wishes, rows = { statistic = stats.median, seed = o.seed }, {}
    for i, way in ipairs(WAYS) do
      local d = stats.paired_difference(found[i].medians, found[1].medians, wishes)
      rows[i] = { way = way.name, median = stats.median(found[i].all) / 1e3, p99 = stats.percentile(found[i].all, 99) / 1e3,
                  more = d.value, low = d.low, high = d.high }
    end
    for _, way in ipairs(WAYS) do
      if way.file then print(("\n%s:\n\n  %s"):format(way.file, (table.concat(lines_of(way.file), "\n  "):gsub("\n +\n", "\n\n")))) end
    end
    print(("\n%d requests, %.0f waiting on average, %d in a step at most; ranking and filling, µs a step, %d rounds in turn:\n")
      :format(o.requests, found.waiting, o.batch, o.rounds))
    lathe.print(rows, { { "way", "shortest job first in" }, { "median", "median", "%.1f" }, { "p99", "p99", "%.1f" },
                        { "more", "more than C", "%.1f" }, { "low", "95% from", "%.1f" }, { "high", "to", "%.1f" } })
    print(("\nWhat was found: a key in Lua makes a step %.1f µs longer (95%% interval %.1f to %.1f), a whole ranking\n" ..
           "%.1f µs (%.1f to %.1f).")
      :format(rows[2].more, rows[2].low, rows[2].high, rows[3].more, rows[3].low, rows[3].high))
    if o.clock == "real" and o.rate > 0 then
      print(("In real time requests meet different steps, so decisions can't be compared one by one: of the order of first\n" ..
             "tokens at least %.0f%% was the same. With --rate 0 they can."):format(100 * found.places))
    elseif found.differ == 0 then
      print(("All three decided the same: %d rows of what each step computed, without a difference."):format(found.rows))
    else
      print(("They did NOT decide the same: %d rows of what the steps computed differ, of %d."):format(found.differ, found.rows))
    end
    print("A key costs when a request comes, a ranking in every step and with every request that waits: write a key where one\n" ..
          "will do. It would change with how many wait (try -- --requests 1000), and matter less the longer a step computes.")
  end,
}
