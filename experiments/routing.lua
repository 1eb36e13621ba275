-- Which router keeps tails short, and how much does looking at two replicas buy?
-- SPDX-License-Identifier: MIT
--
-- In virtual time: n replicas of a simulated model behind each router, the same requests for all of
-- them. Prompts and outputs have the lengths of a trace's rows (each column drawn by itself),
-- arrivals are Poisson at a share of what the replicas can do, which is measured first: one replica
-- with everything there at once. Seeds are paired: differences are taken seed by seed.
--
-- TTFT counts from the arrival. `imbalance` is the tokens of the replica that got most, over the
-- mean. Routers see counts of requests only, not their lengths, except p2c by tokens, which compares
-- prompt tokens yet to be computed. `central` holds requests back while every replica has so many and
-- gives to whichever has had a free place longest: while none is full, that is taking turns, and with
-- too few places the steps are too small to keep up.
--
-- Sessions: the turns of a chat begin alike, so a cache that shares prefixes would find the turns
-- before, if they were on the same replica. Here is none (paged shares nothing; prefix_cache.lua has one),
-- so nothing gets quicker by staying: what is measured is who stays, how many of the prompts' tokens
-- such a cache could have had at most, and what staying costs.
--
--   lathe run experiments/routing.lua
--   lathe run experiments/routing.lua -- --replicas 8,32 --load 0.95 --trace azure_llm_2023_conv.csv
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local CAPACITY_REQUESTS <const>, WARMUP <const> = 2000, 0.1

local function routers_of(o)
  return {
    { "random" }, { "round_robin" }, { "split" }, { "prefix" }, { "p2c", d = 2 }, { "p2c", d = 3 }, { "p2c", d = 2, load = "tokens" },
    { "least_loaded" }, { "central", places = math.max(1, o.places // 2) }, { "central", places = o.places },
  }
end

local function name_of(router)
  local number = router.d or router.places
  return router[1] .. (number and " " .. number or "") .. (router.load and " by tokens" or "")
end

local function sizes_of(text)
  local sizes = {}
  for word in text:gmatch "[^,]+" do
    local n = math.tointeger(tonumber(word))
    if not n or n < 2 or n > 65536 then error(("--replicas: \"%s\" is no number from 2 to 65536; write such as 4,16"):format(word), 0) end
    sizes[#sizes + 1] = n
  end
  return sizes
end

local function lengths_of(path)
  local trace, prompts, outputs = workload.replay { file = path }, {}, {}
  for i, r in ipairs(trace.requests) do prompts[i], outputs[i] = r.prompt_tokens, r.output_tokens end
  return workload.empirical(prompts), workload.empirical(outputs)
end

local function description(o, s, fields)
  local d = { model = s.model, clock = "virtual", scheduler = "fcfs", batching = { "chunked", budget = 512 },
              engine = { batch_requests = o.places, context_tokens = 16384 }, trace = { rows = "requests" } }
  for k, v in pairs(fields) do d[k] = v end
  return d
end

-- Requests a second of one replica that is never out of work.
local function capacity(o, s)
  local all = workload.burst { size = CAPACITY_REQUESTS, every = 0, requests = CAPACITY_REQUESTS, seed = o.seed, prompt = s.prompt,
                               output = s.output }
  return lathe.run(description(o, s, { workload = all, trace = false })).summary.requests_per_s
end

local function imbalance(r)
  local row = r:query [[
    with served(tokens) as (select sum(prompt_tokens + output_tokens) from request where run_id = :run group by replica)
    select max(tokens) as most, sum(tokens) as all_of_them from served]][1]
  return row.most / row.all_of_them
end

-- ── routers ────────────────────────────────────────────────────────────────────────────

local function compare(o, s, n)
  local found = {}
  for i = 1, #s.routers do found[i] = { n = n, router = name_of(s.routers[i]), p50 = {}, p99 = {}, imbalance = {} } end
  for k = 1, o.seeds do
    local load = workload.poisson { rate = o.load * s.capacity * n, requests = o.requests * n, seed = o.seed + k, prompt = s.prompt,
                                    output = s.output }
    for i, router in ipairs(s.routers) do
      local r <close> = lathe.fleet(description(o, s, { replicas = n, router = router, workload = load, seed = o.seed + k,
        warmup = math.floor(WARMUP * o.requests * n),
        label = ("%s of %d"):format(found[i].router, n), factors = { router = found[i].router, replicas = n } }))
      found[i].p50[k], found[i].p99[k] = r.summary.ttft.p50 * 1e3, r.summary.ttft.p99 * 1e3
      found[i].imbalance[k] = imbalance(r) * n
    end
  end
  return found
end

-- ── sessions ───────────────────────────────────────────────────────────────────────────

-- Turns on the replica of the turn before, and tokens that were computed there before.
local STICKY <const> = [[
  select avg(b.replica = a.replica) as stayed,
         sum(case when b.replica = a.replica then a.prompt_tokens + a.output_tokens else 0 end) * 1.0
           / (select sum(prompt_tokens) from request where run_id = :run) as reusable
  from request b join request a on a.run_id = b.run_id and a.session = b.session and a.turn = b.turn - 1
  where b.run_id = :run]]

local function sessions(o, s)
  local system <const>, shortest <const> = 64, 16
  local ways = { { "p2c", d = 2 }, { "least_loaded" }, { "prefix", prefix_tokens = system + shortest },
                 { "split", sticky = "session" } }
  local found, n = {}, s.sizes[#s.sizes > 1 and 2 or 1]
  for i, router in ipairs(ways) do found[i] = { n = n, router = router[1], p99 = {}, stayed = {}, reusable = {} } end
  for k = 1, o.seeds do
    local chats = workload.sessions { rate = 2 * n, sessions = o.sessions, turns = workload.uniform { from = 2, to = 8 }, think = 5,
      system = system, prompt = workload.lognormal { median = 60, sigma = 0.8, min = shortest, max = 400 },
      output = workload.lognormal { median = 60, sigma = 0.6, max = 300 }, max_prompt = 3000, seed = o.seed + k }
    for i, router in ipairs(ways) do
      local r <close> = lathe.fleet(description(o, s, { replicas = n, router = router, workload = chats, seed = o.seed + k,
        engine = { batch_requests = o.places, context_tokens = 4096, max_requests = 128 },
        label = "sessions, " .. router[1], factors = { router = router[1], replicas = n } }))
      local row = r:query(STICKY)[1]
      found[i].p99[k], found[i].stayed[k], found[i].reusable[k] = r.summary.ttft.p99 * 1e3, 100 * row.stayed, 100 * row.reusable
    end
  end
  return found
end

-- ── what is said ───────────────────────────────────────────────────────────────────────

local function with_interval(values, format)
  if #values < 2 then return format:format(values[1]) end
  local c = stats.mean_ci(values)
  return (format .. " ± " .. format):format(c.value, c.half)
end

-- a against b, seed by seed: the ratio of the means, and the difference with its interval.
local function against(a, b)
  local d = stats.paired_ci(a.p99, b.p99)
  return ("%.2f × (%+.0f ms, 95%% interval %+.0f to %+.0f)"):format(stats.mean(a.p99) / stats.mean(b.p99), d.value, d.low, d.high)
end

local function named(found, name)
  for _, row in ipairs(found) do
    if row.router == name then return row end
  end
end

return {
  options = {
    replicas = { default = "4,16", help = "how many, one comparison each" },
    load     = { default = 0.85, help = "arrivals, of what the replicas can do", min = 0.05, max = 1.5 },
    trace    = { default = "data/sample_trace.csv", help = "whose lengths requests have" },
    requests = { default = 600, help = "how many a run, for each replica; the first tenth isn't counted", min = 20 },
    seeds    = { default = 6, help = "of arrivals and lengths, paired", min = 2 },
    places   = { default = 32, help = "requests in a step at most", min = 1 },
    sessions = { default = 600, help = "chats a run", min = 10 },
    profile  = { default = "", help = "a cost profile of calibrate.lua for the model; else the default costs" },
    seed     = { default = 1, help = "what the seeds begin after", min = 0 },
  },

  prepare = function(o)
    local s = { sizes = sizes_of(o.replicas), routers = routers_of(o),
                model = lathe.model { "sim", profile = o.profile ~= "" and o.profile or nil } }
    s.prompt, s.output = lengths_of(o.trace)
    s.capacity = capacity(o, s)
    return s
  end,

  run = function(o, s)
    local found = {}
    for i, n in ipairs(s.sizes) do found[i] = compare(o, s, n) end
    found.sessions = sessions(o, s)
    return found
  end,

  report = function(o, found, s)
    print(("\nA replica can do %.2f requests/s of these; arrivals at %.0f%% of that, %d requests a replica, %d seeds:\n")
      :format(s.capacity, 100 * o.load, o.requests, o.seeds))
    local rows = {}
    for _, of_size in ipairs(found) do
      for _, f in ipairs(of_size) do
        rows[#rows + 1] = { n = f.n, router = f.router, p50 = stats.mean(f.p50), p99 = with_interval(f.p99, "%.0f"),
                            imbalance = stats.mean(f.imbalance) }
      end
    end
    lathe.print(rows, { { "n", "replicas" }, "router", { "p50", "TTFT p50 ms", "%.0f" }, { "p99", "TTFT p99 ms" },
                        { "imbalance", "imbalance", "%.2f" } })
    rows = {}
    for i, f in ipairs(found.sessions) do
      rows[i] = { router = f.router, stayed = stats.mean(f.stayed), reusable = stats.mean(f.reusable), p99 = with_interval(f.p99, "%.0f") }
    end
    print(("\n%d chats on %d replicas:\n"):format(o.sessions, found.sessions[1].n))
    lathe.print(rows, { "router", { "stayed", "turns that stayed %", "%.0f" }, { "reusable", "prompt tokens reusable %", "%.0f" },
                        { "p99", "TTFT p99 ms" } })

    print "\nWhat was found:"
    for _, of_size in ipairs(found) do
      local two = named(of_size, "p2c 2")
      print(("With %d replicas looking at two makes TTFT p99 %s that of a random choice,\n  %s that of taking turns;")
        :format(two.n, against(two, named(of_size, "random")), against(two, named(of_size, "round_robin"))))
      print(("  looking at three makes it %s that of two,\n  at all of them %s;"):format(against(named(of_size, "p2c 3"), two),
        against(named(of_size, "least_loaded"), two)))
      print(("  what two are compared by matters as much: prompt tokens instead of requests make it %s.")
        :format(against(named(of_size, "p2c 2 by tokens"), two)))
    end
    local p2c, prefix = found.sessions[1], found.sessions[3]
    print(("Chats: by prefix %.0f%% of the turns stay where they were (two choices: %.0f%%): a cache that shares prefixes could save\n" ..
           "up to %.0f%% of the prompts' tokens instead of %.0f%%. There is none here, so staying can only cost: TTFT p99 %s.")
      :format(stats.mean(prefix.stayed), stats.mean(p2c.stayed), stats.mean(prefix.reusable), stats.mean(p2c.reusable),
        against(prefix, p2c)))
    print("What would change this: a cache that shares prefixes; less load (where nobody waits all are alike) or more (where everybody\n" ..
          "does); counts that are old when the router sees them, here they are exact; replicas that are not equally quick, for which\n" ..
          "taking turns is worse still; requests whose lengths differ more, which makes counting them tell less.")
  end,
}
