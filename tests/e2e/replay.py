#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe replay`: a run again, equal; what was another way is named; what can't be known is said."""
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile

lathe = os.environ["LATHE"]
zoo = pathlib.Path(os.environ["LATHE_SOURCE"]) / "tests/data/zoo"
folder = tempfile.TemporaryDirectory()
here = pathlib.Path(folder.name)
failures = []


def call(*words):
    return subprocess.run([lathe, *words], cwd=here, capture_output=True, text=True, timeout=120)


def replay(*words):
    return call("replay", "-q", *words)


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-800:]}\n  stderr: {result.stderr[-800:]}")


def rows(database, query):
    connection = sqlite3.connect(here / database)
    try:
        found = connection.execute(query).fetchall()
        connection.commit()
        return found
    finally:
        connection.close()


def one_line(result):
    return result.stderr.count("\n") == 1 and "traceback" not in result.stderr


(here / "make.lua").write_text("""-- Runs to repeat.
local lathe = require "lathe"
local model = lathe.model "tiny"
local function requests(more)
  local list = {}
  for i = 1, 8 do
    list[i] = { prompt_tokens = 10 + 7 * i, output_tokens = 4 + i, class = "c" .. i % 3, tenant = "t" .. i % 2, priority = i,
                session = i, turn = 2, predicted = 100 - 12 * i, slo = { ttft = 0.5, tpot = 0.25 } }
    for k, v in pairs(more or {}) do list[i][k] = v end
  end
  return list
end
local function run(label, workload, more)
  local d = { model = model, label = label, seed = 3, workload = workload, engine = { batch_tokens = 48 } }
  for k, v in pairs(more or {}) do d[k] = v end
  lathe.run(d)
end
local hot = { "topp", temperature = 1.0 }
run("1 closed", { requests = requests(), concurrency = 3 }, { sampler = hot })
run("2 at once, sjf", requests(), { scheduler = "sjf", sampler = hot, kvcache = { "paged", block_tokens = 8 } })
run("3 static", requests { max_tokens = 9 }, { batching = { "static", batch = 3, window_ms = 0 } })
local texts = {}
for i = 1, 4 do texts[i] = { prompt = "a text " .. i, max_tokens = 40 } end
run("4 texts, kept", texts, { trace = { tokens = "all" }, sampler = hot })
run("5 texts, not kept", texts, { sampler = hot })
run("6 own sampling", { { prompt_tokens = 9, output_tokens = 20, sampling = { temperature = 1.5, top_p = 0.7, seed = 11 } } },
    { sampler = "topp" })
local late = requests()
for i = 1, 8 do late[i].at = i / 50 end
run("7 by a real clock", late)
do
  local e <close> = lathe.engine { model = model, label = "8 cancelled" }
  local a, b = e:post { tokens = { 1, 2, 3 }, max_tokens = 500 }, e:post { tokens = { 4, 5 }, output_tokens = 9 }
  a:cancel()
  b:await()
end
run("9 given answers", { { tokens = { 1, 2, 3 }, forced = { 7, 257, 9, 11 } }, { tokens = { 4 }, forced = { 5 } }, { tokens = { 6 }, max_tokens = 3 } },
    { trace = { tokens = "all", kv = 2, probes = { { format = "top", layers = { 0 }, top_k = 3 }, { format = "full", requests = { 2 } },
                                                   { format = "hidden" } } },
      interventions = { { "mlp_scale", layers = { 1 }, factor = 0.5, requests = { 1 } }, { "keys_drop", keys = { 1, 0 }, positions = { 2 } },
                        { "head_set", layers = { 0 }, heads = { 1 }, positions = { 1, 2 }, values = { 1, 2, 3, 4, 5, 6, 7, 8.5 } } } })
""")
r = call("run", "-q", "--database", "x.db", "make.lua")
check("runs are made", r.returncode == 0 and r.stderr == "", r)

for run, what in ((1, "closed"), (2, "at once"), (3, "static batching"), (4, "recorded texts"), (6, "own sampling"), (9, "given answers")):
    r = replay("x.db", str(run))
    check(f"equal: {what}", r.returncode == 0 and r.stderr == "" and " are equal\n" in r.stdout and "note" not in r.stdout
          and "warning" not in r.stdout, r)
    steps = rows("x.db", f"select count(*), (select count(*) from token where run_id = {run} and kind = 'output') from step where run_id = {run}")[0]
    check(f"equal: {what}: steps and tokens are counted", f"{steps[0]} steps and {steps[1]} tokens are equal" in r.stdout, r)
told = "class, tenant, session, turn, priority, predicted_tokens, max_tokens, ignore_eos, prompt_sha256, slo_ttft_ns, slo_tpot_ns, output_tokens"
for mine, its in ((1, 1), (2, 2), (4, 4)):
    check(f"policies of run {its} are told the same", rows("x.db", f"select {told} from request where run_id = {its} order by id")
          == rows("results/replay.db", f"select {told} from request where run_id = {mine} order by id"))
check("its own sampling is kept", '"temperature":1.5' in rows("x.db", "select sampling from request where run_id = 6")[0][0])

again = rows("results/replay.db", "select max(id) from run")[0][0]
for table, columns in (("token", "request_id, position, token, logprob"), ("score", "request_id, name, value, n"),
                       ("attention_token", "request_id, position, probe_id, data"), ("probe", "id, layers, heads, format, top_k"),
                       ("layer_token", "request_id, position, probe_id, data"),
                       ("intervention", "id, kind, layers, heads, factor, keys, first_position, last_position")):
    of = f"select {columns} from {table} where run_id = %d order by 1, 2, 3"
    check(f"given answers: {table} is the same", rows("x.db", of % 9) == rows("results/replay.db", of % again) != [])
check("given answers are scored", rows("x.db", "select request_id, n from score where run_id = 9") == [(1, 4), (2, 1)])
rows("x.db", """update run set config = json_set(config, '$.interventions', json('[{"kind":"patch","values":{"sha256":"00","count":9000}}]')) where id = 9""")
r = replay("x.db", "9")
check("a patch that is too large for the database", r.returncode == 1 and "9000 values" in r.stderr and one_line(r), r)

r = replay("x.db", "5", "-o", "other/place.db")
check("prompts that weren't recorded are stood in for", "note: 4 prompts were not recorded" in r.stdout and r.returncode == 0, r)
check("-o", rows("other/place.db", "select count(*) from run") == [(1,)])
r = replay("x.db", "7")
check("a real clock is equal or said to be the reason", (r.returncode == 0 and "are equal" in r.stdout)
      or (r.returncode == 1 and "real clock" in r.stderr and one_line(r)), r)
r = replay("x.db", "8")
check("cancelled requests are told of", "1 request ended early" in r.stdout, r)
r = replay("x.db", "2", "--set", "scheduler=fcfs")
check("--set: another scheduler decides otherwise, from a step on", r.returncode == 1 and "step " in r.stderr and one_line(r), r)

# ── by the virtual clock: exact ──────────────────────────────────────────────────────────
(here / "virtual.lua").write_text("""-- Runs by the virtual clock.
local lathe    = require "lathe"
local workload = require "lathe.workload"
local sim = lathe.model { "sim", noise = 0.05 }
lathe.run { model = sim, clock = "virtual", seed = 5, scheduler = "sjf", label = "drawn, classes", workload = workload.poisson {
  rate = 3, requests = 150, seed = 1, predicted = { noise = 0.5 }, classes = {
    { name = "chat", tenant = "a", share = 2, weight = 2, slo = { ttft = 1, tpot = 0.1 },
      prompt = workload.lognormal { median = 100, sigma = 1, max = 800 }, output = workload.lognormal { median = 40, sigma = 0.8, max = 300 } },
    { name = "sum", tenant = "b", priority = 2, deadline_s = 30, prompt = workload.uniform { from = 300, to = 900 }, output = workload.fixed(20) } } } }
lathe.run { model = sim, clock = "virtual", seed = 6, label = "replicas, a fault", workers = { model = 3 }, router = "least_loaded",
  faults = { { at = 5, kind = "dies", replica = 1, lasts = 3 } }, trace = { rows = "requests" }, workload = workload.gamma {
    rate = 9, cv = 3, requests = 150, seed = 2, prompt = workload.fixed(200), output = workload.uniform { from = 5, to = 90 } } }
lathe.run { model = sim, clock = "virtual", label = "closed, thinking", batching = "static", trace = { rows = "step_requests" },
  workload = workload.closed { concurrency = 7, think = 0.4, requests = 60, prompt = workload.uniform { from = 10, to = 500 }, output = workload.fixed(9) } }
lathe.run { model = sim, clock = "virtual", label = "prefill apart", workers = { model = 3 }, disaggregate = { prefill = 1, transfer_us_per_token = 20 },
  workload = workload.poisson { rate = 6, requests = 120, seed = 3, predicted = true, each = { slo = { ttft = 1, tpot = 0.05 } },
    prompt = workload.lognormal { median = 100, sigma = 1, max = 800 }, output = workload.uniform { from = 1, to = 60 } } }
local machine = lathe.model { "sim", profile = "machine.profile", decode_us = 7 }
lathe.run { model = machine, clock = "virtual", label = "a profile, and an option that wins over it", workload = workload.poisson {
  rate = 20, requests = 40, seed = 4, prompt = workload.fixed(20), output = workload.fixed(5) } }
""")
(here / "machine.profile").write_text("step_us = 1234\nprefill_us = 56\ndecode_us = 99\n")
r = call("run", "-q", "--database", "v.db", "virtual.lua")
check("simulations are made", r.returncode == 0 and r.stderr == "", r)
for run, count in ((1, 150), (2, 150), (3, 60), (4, 120), (5, 40)):
    r = replay("v.db", str(run))
    check(f"simulation {run} is equal, and so are its times", r.returncode == 0 and r.stderr == "" and f"when each of {count} requests was answered" in r.stdout
          and "note" not in r.stdout, r)
check("weights are told again", rows("results/replay.db", "select distinct weight from request where class = 'chat' and run_id = (select max(id) - 4 from run)") == [(2000,)])
rows("v.db", "update step set start_ns = start_ns + 1 where run_id = 1 and id = 9")
r = replay("v.db", "1")
check("a step that began at another time", r.returncode == 1 and "step 9: it began at " in r.stderr and "real clock" not in r.stderr and one_line(r), r)
rows("v.db", "update request set finish_ns = finish_ns + 1 where run_id = 2 and id = 4")
r = replay("v.db", "2")
check("a request that ended at another time", r.returncode == 1 and "request 4: finish_ns is " in r.stderr and one_line(r), r)

# ── differences are named ────────────────────────────────────────────────────────────────
step, request, tokens = rows("x.db", "select step_id, request_id, tokens from step_request where run_id = 1 and step_id > 5 limit 1")[0]
rows("x.db", f"update step_request set tokens = tokens + 64 where run_id = 1 and step_id = {step} and request_id = {request}")
r = replay("x.db", "1")
check("another number of tokens", r.returncode == 1 and one_line(r)
      and f"step {step}: request {request} got {tokens} token" in r.stderr and f"was {tokens + 64}" in r.stderr, r)
rows("x.db", f"update step_request set tokens = tokens - 64 where run_id = 1 and step_id = {step} and request_id = {request}")
position, step, token = rows("x.db", "select position, step_id, token from token where run_id = 2 and request_id = 5 and kind = 'output' order by 1 limit 1")[0]
rows("x.db", f"update token set token = token + 1 where run_id = 2 and request_id = 5 and position = {position}")
r = replay("x.db", "2")
check("another token", r.returncode == 1 and f"step {step}: request 5 got token {token} at position {position}, was {token + 1}" in r.stderr, r)
rows("x.db", f"update token set token = token - 1 where run_id = 2 and request_id = 5 and position = {position}")
rows("x.db", "delete from step_request where run_id = 2 and step_id = 4")
r = replay("x.db", "2")
check("who wasn't in a step before", r.returncode == 1 and "step 4: request " in r.stderr and "wasn't before" in r.stderr, r)
rows("x.db", "update request set finish_reason = 'deadline' where run_id = 3 and id = 2")
r = replay("x.db", "3")
check("another end", r.returncode == 1 and "request 2 ended with length, was deadline" in r.stderr, r)
rows("x.db", "update plugin set sha256 = '00' where run_id = 6 and kind = 'scheduler'")
r = replay("x.db", "6")
check("a plugin that changed is warned of", r.returncode == 0 and "warning: scheduler/fcfs is not what it was" in r.stdout, r)

(here / "llama.lua").write_text(f"""-- A model of a file.
local lathe = require "lathe"
local model = lathe.model {{ "llama", path = "{zoo / 'llama-f32.gguf'}", tokenizer = "byte" }}
lathe.run {{ model = model, sampler = "topp", workload = {{ {{ tokens = {{ 1, 2, 3 }}, output_tokens = 6 }}, {{ prompt_tokens = 4, output_tokens = 3 }} }},
  trace = {{ tokens = "all" }} }}
""")
r = call("run", "-q", "--database", "llama.db", "llama.lua")
check("a model of a file runs", r.returncode == 0, r)
r = replay("llama.db")
check("and runs again, the only run without its number", r.returncode == 0 and "are equal" in r.stdout and "warning" not in r.stdout, r)
rows("llama.db", "update artifact set sha256 = '00' where kind = 'model'")
r = replay("llama.db", "1")
check("a model file that changed is warned of", r.returncode == 0 and "warning: the model's file is not what it was" in r.stdout, r)
rows("llama.db", "update run set config = replace(config, 'llama-f32', 'llama-gone')")
r = replay("llama.db")
check("a model file that is gone is one sentence", r.returncode == 1 and "llama-gone.gguf" in r.stderr and one_line(r), r)
rows("x.db", "insert into service_event values (6, 5, 'engine', 0, 'swapped', 'scheduler')")
r = replay("x.db", "6")
check("a stage that was swapped is told of", r.returncode == 0 and "note: stages were swapped, scaled or lost once" in r.stdout, r)

# ── rows of before the columns that replays read ─────────────────────────────────────────
shutil.copy(here / "x.db", here / "old.db")
for (view,) in rows("old.db", "select name from sqlite_schema where type = 'view'"):
    rows("old.db", f"drop view {view}")  # some read tables of the extension, which dropping a column would ask for
for column in ("predicted_tokens", "weight", "max_tokens", "ignore_eos", "sampling"):
    rows("old.db", f"alter table request drop column {column}")
rows("old.db", "pragma user_version = 3")
r = replay("old.db", "1")
check("a run of an older lathe", r.returncode == 0 and "are equal" in r.stdout, r)

# ── mistakes ─────────────────────────────────────────────────────────────────────────────
r = call("replay", "--help")
check("--help", r.returncode == 0 and r.stdout.startswith("usage: lathe replay"), r)
for words, status, text in (((), 2, "which run"), (("x.db",), 1, "holds 9 runs"), (("x.db", "10"), 1, "has no run 10"),
                            (("x.db", "one"), 2, "RUN"), (("nix.db", "1"), 1, "nix.db"), (("make.lua", "1"), 1, "not a database"),
                            (("x.db", "1", "--outpt=y"), 2, "--output"), (("x.db", "1", "2"), 2, "left over")):
    r = replay(*words)
    check(f"replay {' '.join(words)}: one sentence", r.returncode == status and text in r.stderr and one_line(r), r)
rows("x.db", "update run set config = null where id = 1")
r = replay("x.db", "1")
check("a run without a configuration", r.returncode == 1 and "no configuration" in r.stderr and one_line(r), r)
sys.exit(1 if failures else 0)
