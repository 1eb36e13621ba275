-- Questions to a run: bound parameters, NULL, columns, errors; and the rows a run leaves.
-- SPDX-License-Identifier: MIT
local lathe = require "lathe"
local t     = require "support"

local model = lathe.model "tiny"
local function go(label, seed)
  return lathe.run { model = model, label = label, seed = seed, factors = { rate = 2.5, name = "x", whole = 3, yes = true },
                     workload = { { prompt = "hello", output_tokens = 5, class = "a" }, { prompt = "what", output_tokens = 3, at = 0.01 } },
                     trace = { attention = "summary", tokens = "all" } }
end
local first, r = go("first", 1), go("second", 2)
t.equal(first.label, "first")
t.equal(r.id, first.id + 1)
t.equal(r.requests, 2)
t.truth(r.elapsed_s > 0)
t.truth(r.database:find "query.db")

-- parameters: in order, by number, by name, :run by itself
t.equal(r:query("select 1 + ? as x", 2)[1].x, 3)
t.equal(r:query("select ? || ? as x", "a", "b")[1].x, "ab")
t.equal(r:query("select :n * :m as x", { n = 3, m = 1.5 })[1].x, 4.5)
t.equal(r:query("select ? + :n as x", 10, { n = 1 })[1].x, 11)
t.equal(r:query "select label from run where id = :run" [1].label, "second")
t.equal(first:query "select label from run where id = :run" [1].label, "first")
t.equal(r:query("select :run as x", { run = first.id })[1].x, first.id)
t.equal(r:query("select typeof(?) as x", true)[1].x, "integer")
t.equal(r:query("select count(*) as n from request where run_id = :run and class = ?", "a")[1].n, 1)
t.equal(r:query("select ? as x", "'; drop table run; --")[1].x, "'; drop table run; --")

-- types, NULL, order of columns, no rows
local row = r:query "select 1 as i, 1.5 as f, 'x' as s, null as n, x'0001' as b"
t.equal(math.type(row[1].i), "integer")
t.equal(math.type(row[1].f), "float")
t.equal(row[1].n, nil)
t.equal(#row[1].b, 2)
t.equal(table.concat(row.columns, " "), "i f s n b")
t.equal(#r:query "select 1 where 0", 0)

-- mistakes
t.fails(function() r:query "selec 1" end, "syntax error")
t.fails(function() r:query "select 1; select 2" end, "one statement")
t.fails(function() r:query "" end, "no statement")
t.fails(function() r:query "select ?" end, "parameter 1 has no value")
t.fails(function() r:query("select 1", 2) end, "1 values given")
t.fails(function() r:query "select :who" end, "parameter :who has no value")
t.fails(function() r:query("select ?", print) end, "can't be a function")
t.fails(function() r:query(7) end, "takes SQL")
t.fails(function() r:query "delete from run" end, "readonly")
t.fails(function() r.query("select 1") end, "colon")
t.fails(function() lathe.sql "no/such.db" end, "no/such.db")
t.fails(function() lathe.sql(nil) end, "path")

-- the run's own rows
local run = r:query "select * from run where id = :run" [1]
t.equal(run.state, "done")
t.equal(run.experiment, "query")
t.truth(run.question:find "^Questions to a run")
t.equal(run.seed, 2)
t.equal(run.clock, "real")
t.truth(lathe.json.decode(run.machine).cpus >= 1)
local config = lathe.json.decode(run.config)
t.equal(config.scheduler.name, "fcfs")
t.equal(config.kvcache.name, "paged")
t.equal(config.model.name, "tiny")
t.truth(config.kvcache.options.block_tokens > 0)
t.equal(config.trace.attention, "summary")
t.equal(config.workload.requests, 2)
t.equal(run.config_hash, first:query "select config_hash as h from run where id = :run" [1].h)
t.equal(#run.config_hash, 64)
t.truth(lathe.json.decode(run.argv)[2] == "run")
local factors = {}
for _, f in ipairs(r:query "select name, value from run_factor where run_id = :run") do factors[f.name] = f.value end
t.near(tonumber(factors.rate), 2.5, 0)
t.equal(tostring(factors.whole), "3")
local kinds = r:query "select group_concat(kind) as k, min(length(sha256)) as s from (select * from plugin where run_id = :run order by kind)" [1]
t.equal(kinds.k, "batching,bus,kvcache,model,sampler,scheduler,tokenizer")
t.equal(kinds.s, 64)
t.equal(r:query "select count(*) as n from artifact where run_id = :run and kind = 'script' and length(sha256) = 64" [1].n, 1)
t.equal(r:query "select count(*) as n from probe where run_id = :run" [1].n, 1)

-- requests, tokens, attention: as many as there must be
local requests = r:query "select id, prompt_tokens, output_tokens, finish_reason from request where run_id = :run order by id"
t.equal(#requests, 2)
t.equal(requests[1].output_tokens, 5)
t.equal(requests[1].prompt_tokens, 5)
t.equal(requests[1].finish_reason, "length")
t.equal(r:query "select count(*) as n from token where run_id = :run and kind = 'output'" [1].n, 8)
t.equal(r:query "select count(*) as n from token where run_id = :run and kind = 'prompt'" [1].n, 9)
t.equal(r:query [[select group_concat(text, '') as text from (select x.text from token t join token_text x
  on x.run_id = t.run_id and x.token = t.token where t.run_id = :run and t.request_id = 1 and kind = 'prompt' order by position)]][1].text, "hello")
local info = model:info()
-- every position that was forwarded: prompt and output but for the last token
t.equal(r:query "select count(*) as n from attention where run_id = :run" [1].n, (5 + 4 + 4 + 2) * info.layers * info.heads)
t.near(r:query "select min(first_mass) as m from attention where run_id = :run and position = 0" [1].m, 1, 1e-3)
local latency = r:query "select * from request_latency where run_id = :run order by request_id"
t.equal(#latency, 2)
t.truth(latency[1].ttft_ms > 0 and latency[1].e2e_ms >= latency[1].ttft_ms)

-- another face of the same file
local db <close> = lathe.sql(r.database)
t.equal(db:query "select count(*) as n from run where label in ('first', 'second')" [1].n >= 2, true)
t.fails(function() db:query "select :run" end, "parameter :run has no value")
r:close()
t.fails(function() r:query "select 1" end, "used after it was closed")
