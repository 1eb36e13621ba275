-- lathe.sweep: order, resuming, failures, figures, files.
-- SPDX-License-Identifier: MIT
local core  = require "lathe.core"
local lathe = require "lathe"
local plot  = require "lathe.sweep_plot"
local stats = require "lathe.stats"
local t     = require "support"

local model <close> = lathe.model "tiny"
local real_print = print
local printed = {}
local function quietly(f, ...) -- what it prints, and what it returns
  printed = {}
  rawset(_G, "print", function(...) printed[#printed + 1] = table.concat({ ... }, "\t") end)
  local results = table.pack(pcall(f, ...))
  rawset(_G, "print", real_print)
  if not results[1] then error(results[2], 0) end
  return table.concat(printed, "\n"), table.unpack(results, 2)
end

local calls, tokens = {}, 8
local function sweep(fields)
  calls = {}
  local d = {
    name = "s", seeds = 3, baseline = { scheduler = "fcfs" }, grid = { scheduler = { "fcfs", "sjf" }, n = { 4, 8 } },
    run = function(p)
      calls[#calls + 1] = ("%d/%d:%s/%d"):format(p.seed, p.seed_index, p.scheduler, p.n)
      t.equal(p.factors.scheduler, p.scheduler)
      t.equal(p.factors.seed, nil)
      local w = {}
      for i = 1, p.n do w[i] = { prompt = "prompt " .. i, output_tokens = tokens } end
      return { model = model, scheduler = p.scheduler, workload = w, kvcache = { "paged", block_tokens = 16 } }
    end,
    metrics = { -- a difference that is known: sjf is 10 below fcfs whatever the seed, which adds noise to both
      known = [[select 100 + 3 * r.seed + (case when f.value = '"sjf"' then -10 - 0.1 * r.seed else 0 end)
                  from run r join run_factor f on f.run_id = r.id and f.name = 'scheduler' where r.id = :run]],
      odd = "select case when seed_index > 0 then 1 end from run where id = :run",
    },
  }
  for k, v in pairs(fields or {}) do d[k] = v end
  return lathe.sweep(d)
end
local function done(s, name) return s.db:query("select count(*) as n from run where sweep = ? and state = 'done'", name)[1].n end

-- seed by seed, each beginning at another point
local s = sweep()
t.equal(table.concat(calls, " "), "1/0:fcfs/4 1/0:sjf/4 1/0:fcfs/8 1/0:sjf/8 " ..
  "2/1:sjf/4 2/1:fcfs/8 2/1:sjf/8 2/1:fcfs/4 3/2:fcfs/8 3/2:sjf/8 3/2:fcfs/4 3/2:sjf/4")

-- rows: factors, name, seeds
local runs = s:runs()
t.equal(#runs, 12)
t.equal(runs[2].point.scheduler, "sjf")
t.equal(runs[2].metrics.requests, 4)
t.equal(runs[4].metrics.output_tokens, 64)
local row = s:query("select * from sweep_point where run_id = :it", { it = runs[5].run })[1]
t.equal(row.point, '{"n":4,"scheduler":"sjf"}')
t.equal(row.seed, 2)
t.equal(row.seed_index, 1)
t.equal(#row.key, 64)
t.equal(s:query "select count(*) as n from request where run_id in (select value from json_each(:runs))"[1].n, 72)
t.equal(s:query "select sum(done) as n from how_far_is_a_sweep where sweep = :sweep"[1].n, 12)

-- again: nothing runs; the same figures
local again = sweep()
t.equal(done(again, "s"), 12)
t.equal(again:runs()[7].run, runs[7].run)
t.equal(again:runs()[7].resumed, true)
-- one more seed, one more value: only what is new runs
t.equal(done(sweep { seeds = { 1, 2, 3, 9 }, grid = { scheduler = { "fcfs", "sjf" }, n = { 4, 8, 2 } } }, "s"), 24)
-- another name, other requests, another option, fresh: all of it runs
t.equal(done(sweep { name = "other" }, "other"), 12)
tokens = 9
t.equal(done(sweep(), "s"), 36)
tokens = 8
local function other_blocks(p)
  return { model = model, scheduler = p.scheduler, workload = { "x" }, kvcache = { "paged", block_tokens = p.blocks } }
end
t.equal(done(sweep { name = "o", grid = { scheduler = "fcfs" }, seeds = 1,
                     run = function(p) p.blocks = 16 return other_blocks(p) end, metrics = {} }, "o"), 1)
t.equal(done(sweep { name = "o", grid = { scheduler = "fcfs" }, seeds = 1,
                     run = function(p) p.blocks = 32 return other_blocks(p) end, metrics = {} }, "o"), 2)
t.equal(done(sweep { fresh = true }, "s"), 48)

-- lathe.run, too
local one = { model = model, workload = { { prompt = "a" } }, seed = 4, resume = true }
local first, second = lathe.run(one), lathe.run(one)
t.equal(first.resumed, false)
t.equal(second.resumed, true)
t.equal(second.id, first.id)
t.equal(second.requests, 1)
t.equal(second:query "select count(*) as n from request where run_id = :run"[1].n, 1)
t.fails(function() second:outputs() end, "resume")
t.truth(stats.settled(second).warning:find("too few requests", 1, true), "settled, on real rows")
one.seed = 5
t.equal(lathe.run(one).resumed, false, "another seed")
one.workload = { { prompt = "b" } }
t.equal(lathe.run(one).resumed, false, "another prompt")
t.fails(function() lathe.run { model = model, workload = { "x" }, resume = 1 } end, "resume")

-- known differences, paired: −10.1 … −10.3, sd 0.1, t(2) = 4.3027: ± 0.2484
local differences = s:differences "known"
t.equal(#differences, 2)
t.near(differences[1].difference, -10.2, 1e-9)
t.near(differences[1].high - differences[1].difference, 4.302652729911275 * 0.1 / math.sqrt(3), 1e-9)
t.equal(differences[1].verdict, "lower")
t.near(differences[1].p_holm, 2 * differences[1].p, 1e-12)
t.equal(differences[2].point.n, 8)
local text = quietly(s.compare, s, "known")
t.truth(text:find("Holm", 1, true) and text:find("Student", 1, true) and text:find("lower", 1, true), text)
text = quietly(s.compare, s, "ttft_p99_ms") -- NULL everywhere
t.truth(text:find("no interval", 1, true), text)
t.equal(s:differences "odd"[1].n, 2)
t.fails(function() s:compare "ttft_p50" end, "did you mean")
local _, rows = quietly(s.table, s, { "known", "output_tokens" })
t.equal(rows[1].n, 3)
t.equal(rows[1].output_tokens, "32 ± 0")
t.fails(function() s:table { "konwn" } end, "known")
t.fails(function() sweep { baseline = false, metrics = {} } end, "baseline")
t.fails(function() lathe.sweep { name = "x", grid = { a = 1 }, run = one, seeds = 1 } end, "run")

local _, unsettled = quietly(s.settled, s)
t.equal(#unsettled, 0)
t.fails(function() lathe.engine { model = model, resume = true } end, "resume")

-- files
local path = s:export "x.csv"
local lines = {}
for line in io.lines(path) do lines[#lines + 1] = line end
t.equal(#lines, 13)
t.truth(lines[1]:find("run,seed,seed_index,n,scheduler,requests,", 1, true) == 1, lines[1])
t.truth(lines[2]:find("^1,1,0,4,fcfs,4,0,"), lines[2])
local script = plot.script(s, { x = "n", y = "known", by = "scheduler", file = "x.svg" })
t.truth(script:find("title 'sjf'", 1, true) and script:find("\n4 95.8 ", 1, true), script)
script = plot.script(s, { x = "scheduler", y = "known", file = "it's.svg" })
t.truth(script:find("set xtics  ('fcfs' 1, 'sjf' 2)", 1, true) and script:find("'it''s.svg'", 1, true), script)
local drawn, why = s:plot { x = "n", y = "known", file = "x.svg" }
if drawn then
  local file <close> = io.open "x.svg"
  t.truth(file:read "a":find("<svg", 1, true), "an SVG")
else
  t.truth(why:find("gnuplot", 1, true), why)
end
t.fails(function() s:plot { x = "m", y = "known", file = "x.svg" } end, "\"x\"")

-- what fails is a row, stepped over, told of; the next time it is tried again
local luck = false
local function unlucky(p)
  if p.scheduler == "sjf" and p.seed == 2 and not luck then error "no luck" end
  if p.scheduler == "sjf" and p.seed == 1 and not luck then return { model = model, workload = { "x" }, scheduler = "sfj" } end
  return { model = model, workload = { "x" }, scheduler = p.scheduler }
end
local f = sweep { name = "f", grid = { scheduler = { "fcfs", "sjf" } }, run = unlucky, retries = 1, metrics = {} }
t.equal(#f:runs(), 4)
t.equal(#f:failures(), 2)
t.truth(f:failures()[1].message:find("did you mean `sjf`", 1, true), f:failures()[1].message)
t.truth(f:failures()[2].message:find("no luck", 1, true))
t.equal(f:query "select sum(failed) as n from how_far_is_a_sweep where sweep = :sweep"[1].n, 4) -- each tried twice
t.truth(f:query "select max(last_failure) as m from how_far_is_a_sweep where sweep = :sweep"[1].m:find "no luck")
t.equal(f:differences "tokens_per_s"[1].n, 1)
luck = true
f = sweep { name = "f", grid = { scheduler = { "fcfs", "sjf" } }, run = unlucky, metrics = {} }
t.equal(#f:runs(), 6)
t.equal(done(f, "f"), 6)
luck = false
t.fails(function() sweep { name = "n", grid = { scheduler = { "sjf" } }, seeds = { 2 }, baseline = { scheduler = "sjf" }, run = unlucky } end,
  "none of 1", "no luck")

-- misuse
t.fails(function() sweep { seed = 3 } end, "did you mean \"seeds\"?")
t.fails(function() sweep { seeds = { 1, 1 } } end, "twice")
t.fails(function() sweep { grid = { seed = { 1 } } } end, "seed")
t.fails(function() sweep { baseline = { scheduler = "srpt" } } end, "srpt")
t.fails(function() sweep { baseline = { shceduler = "fcfs" } } end, "scheduler")
t.fails(function() sweep { jobs = 2, fresh = true } end, "virtual")
t.fails(function()
  sweep { run = function() return { model = model, workload = { "x" }, trace = false } end }
end, "trace")

-- side by side: the same tokens in the rows as one by one
core.side_by_side = true
local together = sweep { name = "together", jobs = 4, metrics = {} }
core.side_by_side = nil
local function sums(which)
  return which:query [[select group_concat(point || seed || ':' || n || ':' || sum) as all_of_it from
    (select p.point, p.seed, count(*) as n, sum(k.token * (k.position + k.request_id)) as sum
       from sweep_point p join token k using (run_id) where p.run_id in (select value from json_each(:runs))
      group by p.point, p.seed order by 1, 2)]][1].all_of_it
end
t.equal(#together:runs(), 12)
t.equal(sums(together), sums(s))

-- in virtual time runs go side by side for good, and give what they give one by one, to the nanosecond;
-- also where all points were given one and the same workload
local workload = require "lathe.workload"
local sim <close> = lathe.model "sim"
local lognormal = workload.lognormal { median = 100, sigma = 1 }
local shared = workload.poisson { rate = 0.5, requests = 300, seed = 9, prompt = lognormal, output = lognormal, predicted = true }
local function simulated(name, jobs)
  local v = lathe.sweep { name = name, jobs = jobs, seeds = 4, baseline = { scheduler = "fcfs" },
    grid = { scheduler = { "fcfs", "sjf" }, rate = { 0.5, 1 } }, run = function(p)
      return { model = sim, clock = "virtual", scheduler = p.scheduler, engine = { batch_requests = 4 },
               trace = { rows = "requests" }, workload = p.seed == 4 and shared or workload.poisson {
                 rate = p.rate, requests = 300, seed = p.seed, prompt = lognormal, output = lognormal, predicted = true } }
    end }
  t.equal(#v:runs(), 16)
  return v, v:query [[select group_concat(point || seed || ':' || sum, ' ') as all_of_it from
    (select point, p.seed, sum(finish_ns % 1000003 * r.id) as sum from sweep_point p join request r using (run_id)
      where run_id in (select value from json_each(:runs)) group by run_id order by point, p.seed)]][1].all_of_it
end
local alone, by_one = simulated("alone", 1)
local _, by_four = simulated("four", 4)
t.equal(by_four, by_one)
t.equal(#by_one:gsub("[^ ]", ""), 15)
local means = alone:differences "e2e_p50_ms"
t.truth(means[2].point.rate == 1 and means[2].difference < 0, "the shortest first: a lower median under load")
t.equal(done(simulated("alone", 3), "alone"), 16, "all of it was there")
