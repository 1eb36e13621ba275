-- What does a cache of prefixes save, where prompts begin alike and where conversations go on?
-- SPDX-License-Identifier: MIT
--
-- Three kinds of load: `system`, where all requests of a group begin with the same long text;
-- `conversation`, where each turn begins with the turns before it, answers included; `apart`, where
-- nothing is shared. The same arrivals and lengths meet `paged`, which computes every prompt, and
-- `prefix`, which keeps the blocks of earlier prompts and answers as long as nobody needs the room.
-- Beside what was found stands what could be: all whole blocks of a prompt that an earlier arrival's
-- prompt or answer began with, had every answer been there at once and kept for ever.
--
-- Then conversations in pools of less and less room, by what is evicted (lru, lfu) and by who goes
-- first (fcfs, or the scheduler that asks the cache); and on several replicas, by router.
--
-- Prompts are synthetic token ids, in virtual time too: of lengths alone nobody could say what begins
-- alike. Answers are given (sessions with `forced`), so that the next turn's prompt holds them.
--
--   lathe run experiments/prefix_cache.lua
--   lathe run experiments/prefix_cache.lua -- --clock real --model smollm2-135m --sessions 6 --rate 1 --system 96 --prompt 12 --answer 8
local lathe    = require "lathe"
local stats    = require "lathe.stats"
local workload = require "lathe.workload"

local BLOCK <const> = 16
local POOLS <const> = { 1, 0.5, 0.25 } -- of what holds everything that is ever said

local function loads(o, seed, times)
  local function sessions(t)
    t.rate, t.sessions, t.seed, t.forced, t.think = o.rate * (times or 1), o.sessions, seed, true, o.think
    t.prompt = workload.lognormal { median = o.prompt, sigma = 0.7, max = 8 * o.prompt }
    t.output = workload.lognormal { median = o.answer, sigma = 0.6, max = 6 * o.answer }
    return workload.sessions(t)
  end
  local turns = workload.uniform { from = 2, to = 8 }
  return {
    { name = "apart", load = sessions { turns = 1 } },
    { name = "system", load = sessions { turns = 1, system = { tokens = o.system, groups = 4 } } },
    { name = "conversation", load = sessions { turns = turns, system = { tokens = o.system, groups = 4 } } },
  }
end

-- Tokens of prompts that an unlimited cache could have had, and of all that is ever said.
local function possible(load)
  local known, found, prompts, all = {}, 0, 0, 0
  for _, r in ipairs(load.requests) do
    local said = table.move(r.forced, 1, #r.forced, #r.tokens + 1, table.move(r.tokens, 1, #r.tokens, 1, {}))
    local node, open = known, true
    for at = 1, #said - BLOCK, BLOCK do -- its last token is never computed
      local block = table.concat(said, " ", at, at + BLOCK - 1)
      open = open and node[block] ~= nil and at + BLOCK - 1 < #r.tokens
      if open then found = found + BLOCK end
      if not node[block] then all = all + BLOCK end
      node[block] = node[block] or {}
      node = node[block]
    end
    prompts = prompts + #r.tokens
  end
  return 100 * found / prompts, all
end

local function model_of(o)
  if o.model == "sim" then return lathe.model { "sim", profile = lathe.profile(o.profile) } end
  if o.model == "tiny" then return lathe.model "tiny" end
  return lathe.model { "llama", path = o.model }
end

local function measure(o, s, load, kvcache, more)
  local d = { model = s.model, clock = o.clock, workload = load, kvcache = kvcache, batching = { "chunked", budget = 512 },
              engine = { batch_requests = 32, context_tokens = o.context, kv_memory_mb = o.clock == "real" and 256 or nil },
              trace = { rows = "requests" } }
  for k, v in pairs(more) do d[k] = v end
  local r <close> = (d.replicas and lathe.fleet or lathe.run)(d)
  local row = r:query [[select 100.0 * sum(r.cached_tokens) / sum(r.prompt_tokens) as hits, avg(l.ttft_ms) as mean,
                          percentile(l.ttft_ms, 50) as p50, sum(r.finish_reason <> 'length') as failed
                        from request r join request_latency l on l.run_id = r.run_id and l.request_id = r.id where r.run_id = :run]][1]
  if row.failed > 0 then error(("%d requests failed"):format(row.failed), 0) end
  return row
end

local function collect(into, row)
  for name, value in pairs(row) do
    into[name] = into[name] or {}
    table.insert(into[name], value)
  end
end

-- ── the three loads ───────────────────────────────────────────────────────────────────

local function compare(o, s)
  local found = {}
  for seed = 1, o.seeds do
    for i, of in ipairs(loads(o, seed)) do
      found[i] = found[i] or { load = of.name, paged = {}, prefix = {}, possible = {} }
      for _, kvcache in ipairs { "paged", "prefix" } do
        collect(found[i][kvcache], measure(o, s, of.load, { kvcache, block_tokens = BLOCK }, { seed = seed,
          label = of.name .. ", " .. kvcache, factors = { load = of.name, kvcache = kvcache } }))
      end
      found[i].possible[seed] = possible(of.load)
    end
  end
  return found
end

-- ── less room, and who looks ──────────────────────────────────────────────────────────

local function short(o, s)
  local found, ways = {}, { { evict = "lru", scheduler = "fcfs" }, { evict = "lfu", scheduler = "fcfs" },
                            { evict = "lru", scheduler = "prefix" } }
  for seed = 1, o.seeds do
    local load, i = loads(o, seed, o.busy)[3].load, 0
    local _, all = possible(load)
    for _, share in ipairs(POOLS) do
      for _, way in ipairs(ways) do
        i = i + 1
        found[i] = found[i] or { share = 100 * share, evict = way.evict, scheduler = way.scheduler }
        local blocks = math.ceil(math.max(share * all, 2 * o.context) / BLOCK)
        collect(found[i], measure(o, s, load, { "prefix", block_tokens = BLOCK, blocks = blocks, evict = way.evict },
          { seed = seed, scheduler = way.scheduler, label = ("pool %g, %s, %s"):format(share, way.evict, way.scheduler),
            factors = { pool = share, evict = way.evict, scheduler = way.scheduler } }))
      end
    end
  end
  return found
end

local function routed(o, s)
  local found = {}
  for i, router in ipairs { { "random" }, { "least_loaded" }, { "prefix", prefix_tokens = o.system + 8 } } do
    found[i] = { router = router[1] }
    for seed = 1, o.seeds do
      collect(found[i], measure(o, s, loads(o, seed)[3].load, { "prefix", block_tokens = BLOCK }, { seed = seed, replicas = 4,
        router = router, label = "4 replicas, " .. router[1], factors = { router = router[1] } }))
    end
  end
  return found
end

-- ── what is said ──────────────────────────────────────────────────────────────────────

local function faster(a, b) -- how much of a's TTFT b's is
  if #a < 3 then return ("%.2f × (%d seeds are too few for an interval)"):format(stats.mean(b) / stats.mean(a), #a) end
  local ci = stats.ratio_ci(b, a)
  return ("%.2f × (95%% interval %.2f to %.2f)"):format(ci.value, ci.low, ci.high)
end

local function points(a, b)
  if #a < 3 then return ("%+.1f points (%d seeds are too few for an interval)"):format(stats.mean(a) - stats.mean(b), #a) end
  local ci = stats.paired_ci(a, b)
  return ("%+.1f points (95%% interval %+.1f to %+.1f)"):format(ci.value, ci.low, ci.high)
end

local function averaged(list)
  local rows = {}
  for i, of in ipairs(list) do
    rows[i] = {}
    for name, value in pairs(of) do rows[i][name] = type(value) == "table" and stats.mean(value) or value end
  end
  return rows
end

return {
  options = {
    model    = { default = "sim", help = "the model: sim, tiny, a short name or a GGUF file" },
    profile  = { default = "illustrative-7b", help = "the machine that sim stands for, see lathe.profile" },
    clock    = { default = "virtual", help = "which clock the runs go by", choices = { "real", "virtual" } },
    rate     = { default = 1.0, help = "sessions that begin", unit = "1/s", min = 0.01 },
    busy     = { default = 6.0, help = "times as many where the pool is short, so that somebody waits", min = 0.01 },
    sessions = { default = 150, help = "how many of them a run", min = 2 },
    think    = { default = 8.0, help = "from one turn's arrival to the next", unit = "s", min = 0 },
    system   = { default = 512, help = "what all requests of a group begin with", unit = "tokens", min = 1 },
    prompt   = { default = 60, help = "what a user says, median", unit = "tokens", min = 1 },
    answer   = { default = 60, help = "an answer, median", unit = "tokens", min = 1 },
    context  = { default = 8192, help = "longest request", unit = "tokens", min = 64 },
    seeds    = { default = 4, help = "runs of each, with other arrivals and lengths", min = 1 },
  },

  prepare = function(o) return { model = model_of(o) } end,

  run = function(o, s)
    local found = { compare = compare(o, s) }
    if o.clock == "virtual" then found.short, found.routed = short(o, s), routed(o, s) end
    return found
  end,

  report = function(o, found)
    local rows = {}
    for i, of in ipairs(found.compare) do
      rows[i] = { load = of.load, hits = stats.mean(of.prefix.hits), possible = stats.mean(of.possible),
                  paged = stats.mean(of.paged.mean), prefix = stats.mean(of.prefix.mean),
                  paged50 = stats.mean(of.paged.p50), prefix50 = stats.mean(of.prefix.p50) }
    end
    print(("\n%d sessions, %g a second, on %s, means of %d seeds; TTFT in ms:\n"):format(o.sessions, o.rate,
      o.model == "sim" and o.profile or o.model, o.seeds))
    lathe.print(rows, { "load", { "hits", "found %", "%.1f" }, { "possible", "possible %", "%.1f" },
      { "paged", "TTFT mean, paged", "%.1f" }, { "prefix", "prefix", "%.1f" },
      { "paged50", "median, paged", "%.1f" }, { "prefix50", "prefix", "%.1f" } })
    if found.short then
      print(("\nConversations, %g a second, in a pool of so much of what they say in all:\n"):format(o.rate * o.busy))
      lathe.print(averaged(found.short), { { "share", "pool %", "%.0f" }, "evict", "scheduler", { "hits", "found %", "%.1f" },
        { "mean", "TTFT mean ms", "%.1f" }, { "p50", "median", "%.1f" } })
      print "\nConversations on 4 replicas:\n"
      lathe.print(averaged(found.routed), { "router", { "hits", "found %", "%.1f" }, { "mean", "TTFT mean ms", "%.1f" },
        { "p50", "median", "%.1f" } })
    end

    print "\nWhat was found:"
    for _, of in ipairs(found.compare) do
      print(("Load `%s`: %.0f%% of the prompts' tokens were found (%.0f%% possible); TTFT is %s what it is with paged."):format(of.load,
        stats.mean(of.prefix.hits), stats.mean(of.possible), faster(of.paged.mean, of.prefix.mean)))
    end
    if found.short then
      local n = #found.short
      local lru, lfu, asks = found.short[n - 2], found.short[n - 1], found.short[n]
      print(("In the smallest pool lfu finds %s against lru, and mean TTFT is %s;"):format(points(lfu.hits, lru.hits),
        faster(lru.mean, lfu.mean)))
      print(("  the scheduler that asks the cache finds %s against fcfs, and median TTFT is %s."):format(points(asks.hits, lru.hits),
        faster(lru.p50, asks.p50)))
      print(("On 4 replicas the router that keeps beginnings together finds %s against a random choice."):format(
        points(found.routed[3].hits, found.routed[1].hits)))
    end
    print("What would change this: prompts that are short beside the answers, since only prefill is saved; a pool full of running\n" ..
          "requests, where nothing stays until it is asked for again; turns that come back later than the pool is turned over;\n" ..
          "tenants who must not share (share = tenant); system texts that differ in their first tokens, by a date for one.")
  end,
}
