#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""By the virtual clock two runs are the same bytes, with faults, noise, chance and preemptions in
them; and `lathe replay` repeats such a run from its rows alone."""
import os
import pathlib
import subprocess
import sys
import tempfile

lathe = os.environ["LATHE"]
folder = tempfile.TemporaryDirectory()
here = pathlib.Path(folder.name)
failures = []


def call(*words):
    return subprocess.run([lathe, *words], cwd=here, capture_output=True, text=True, timeout=300,
                          env=dict(os.environ, LATHE_LOG="error"))


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-800:]}\n  stderr: {result.stderr[-800:]}")


(here / "runs.lua").write_text("""-- Runs that differ in everything that could depend on more than the seed.
local lathe    = require "lathe"
local workload = require "lathe.workload"
local o = lathe.options { database = { default = "x.db", help = "where the rows land" }, seed = { default = 1, help = "of all" } }
local small = { "paged", block_tokens = 8, blocks = 30 }
local swaps = { "paged", block_tokens = 8, blocks = 30, preempt = "swap" }
local runs = {
  { scheduler = "fcfs", batching = "continuous", router = "p2c", kvcache = small },
  { scheduler = { "srpt", preempt = "recompute" }, batching = "chunked", router = "random", kvcache = swaps },
  { scheduler = { "mlfq", quantum = 2 }, batching = "static", router = "least_loaded", kvcache = small },
  { scheduler = { "vtc", preempt_margin = 20 }, batching = "prefill_first", router = { "central", places = 4 }, kvcache = swaps },
  { scheduler = "edf", batching = "memory_aware", router = "round_robin", kvcache = small },
  { scheduler = { "sjf", aging_s = 1 }, batching = "dynamic", router = { "split", sticky = "tenant" }, kvcache = small },
}
local model = lathe.model { "sim", step_us = 2000, noise = 0.3 }
for i, run in ipairs(runs) do
  run.model, run.clock, run.seed, run.database, run.label = model, "virtual", o.seed, o.database, "run " .. i
  run.workers = { model = 3 }
  run.engine = { batch_tokens = 64, batch_requests = 8, max_requests = 24, context_tokens = 512 }
  run.trace = { rows = i % 2 == 0 and "steps" or "step_requests" }
  run.faults = lathe.faults { seed = o.seed, replicas = 3, horizon = 2, mtbf = 0.7, mttr = 0.1, slow = { mtbf = 1, lasts = 0.2 },
                              loses = { mtbf = 1 } }
  run.workload = workload.mmpp { requests = 400, rates = { 100, 900 }, stays = { 0.3, 0.2 }, seed = o.seed, classes = {
    { name = "chat", share = 3, tenant = "a", prompt = workload.uniform { from = 1, to = 60 }, output = workload.uniform { from = 1, to = 20 },
      predicted = { noise = 0.5 }, priority = 1, slo = { ttft = 0.2 }, deadline_s = 1 },
    { name = "long", share = 1, tenant = "b", prompt = workload.uniform { from = 20, to = 150 }, output = workload.uniform { from = 1, to = 40 }, weight = 2 },
  } }
  local r <close> = lathe.run(run)
  print(i, r.summary.preemptions, r.summary.failed, r.summary.refused)
end
""")


def export(name, seed):
    result = call("run", "-q", "runs.lua", "--", "--database", f"{name}.db", "--seed", str(seed))
    check(f"six runs into {name}.db", result.returncode == 0 and result.stderr == "", result)
    written = call("export", f"{name}.db", "-o", name, "--stable")
    check(f"{name}.db is exported", written.returncode == 0, written)
    return {path.name: path.read_bytes() for path in sorted((here / name).glob("*.csv"))}, result.stdout


one, said = export("one", 1)
two, _ = export("two", 1)
other, _ = export("other", 2)
check("there is something to compare", len(one["request.csv"].splitlines()) == 6 * 400 + 1 and len(one["step.csv"].splitlines()) > 1000)
check("requests were preempted in each run", all(int(line.split()[1]) > 0 for line in said.splitlines()))
check("the same tables", one.keys() == two.keys())
for name in one:
    check(f"{name} is the same, byte for byte", one[name] == two.get(name))
for name in ("request.csv", "step.csv"):
    check(f"{name} is another one with another seed", one[name] != other[name])

for run in range(1, 7):
    result = call("replay", "-q", "one.db", str(run), "-o", f"again{run}.db")
    check(f"run {run} is repeated from its rows", result.returncode == 0 and result.stderr == "", result)
    what = "select count(*), sum(finish_ns), sum(preemptions), sum(replica * id) from request"
    again, first = call("sql", f"again{run}.db", what), call("sql", "one.db", f"{what} where run_id = {run}")
    check(f"run {run}: requests ended when and where they did", again.returncode == 0 and again.stdout == first.stdout, again)
sys.exit(1 if failures else 0)
