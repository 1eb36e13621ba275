#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sweeps from outside: another script runs again, --resume, Ctrl-C, what reads the rows."""
import csv
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])

SWEEP = """-- Does it go on?
local lathe = require "lathe"
local model = lathe.model "tiny"
local s = lathe.sweep { name = "s", seeds = 2, grid = { scheduler = { "fcfs", "sjf" }, n = { 1, 2 } }, run = function(p)
  local w = {}
  for i = 1, p.n do w[i] = { prompt = "prompt " .. i, output_tokens = 4 } end
  return { model = model, scheduler = p.scheduler, workload = w }
end }
s:export "s.csv"
"""

ONE = """-- One run.
local lathe = require "lathe"
local r = lathe.run { model = lathe.model "tiny", workload = { "a" } }
print(r.id, r.resumed)
"""

# Steps of a tenth of a second: the workload comes in slowly.
SLOW = """-- Is it stopped?
local lathe = require "lathe"
local model = lathe.model "tiny"
lathe.sweep { name = "slow", seeds = 50, grid = { n = { 1 } }, run = function()
  return { model = model, workload = { { prompt = "a", at = 0 }, { prompt = "b", at = 0.2 } } }
end }
"""


# The same with three at once; two of the first rows may come before the signal does.
TOGETHER = SLOW.replace("seeds = 50", "jobs = 3, seeds = 50").replace("slow", "together").replace(
    'local model', 'require "lathe.core".side_by_side = true\nlocal model')


def run(*words, check=True):
    result = subprocess.run([lathe, "run", *words], capture_output=True, text=True, timeout=120)
    if check and result.returncode:
        sys.exit(f"{words}: status {result.returncode}: {result.stderr}")
    return result


def ask(db, sql):
    connection = sqlite3.connect(db)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def equal(found, expected, what):
    if found != expected:
        sys.exit(f"{what}: found {found!r}, expected {expected!r}")


def stop_it(name, text):
    """Ctrl-C after two runs."""
    count = "select count(*) from run where state = 'done'"
    pathlib.Path(f"{name}.lua").write_text(text)
    child = subprocess.Popen([lathe, "run", "-q", f"{name}.lua"], stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        time.sleep(0.05)
        if pathlib.Path(f"results/{name}.db").exists():
            try:
                if ask(f"results/{name}.db", count)[0][0] >= 2:
                    break
            except sqlite3.OperationalError:
                pass  # not yet made
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=60)[1]
    equal(child.returncode, 1, "stopped")
    equal("interrupted:" in said and "run it again" in said, True, f"a sentence: {said!r}")
    equal(said.count("\n"), 1, f"one line: {said!r}")
    done = ask(f"results/{name}.db", count)[0][0]
    equal(2 <= done < 50, True, f"{done} were done")
    equal(ask(f"results/{name}.db", "select count(*) from run where state in ('running', 'cut_short')"), [(0,)], "none is left open")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    script = pathlib.Path("s.lua")
    script.write_text(SWEEP)
    count = "select count(*) from run where state = 'done'"
    equal("8/8 runs, 0 done before, 0 failed" in run("s.lua").stderr, True, "progress")
    equal("8/8 runs, 8 done before, 0 failed" in run("s.lua").stderr, True, "resumed")
    equal(ask("results/s.db", count), [(8,)], "nothing ran again")
    script.write_text(SWEEP + "-- another script, for all that anybody knows\n")
    run("-q", "s.lua")
    equal(ask("results/s.db", count), [(16,)], "another script ran")
    run("-q", "--set", "kvcache=:block_tokens=32", "s.lua")
    equal(ask("results/s.db", count), [(24,)], "another option ran")
    equal(ask("results/s.db", "select count(distinct key) from run"), [(24,)], "keys differ")
    equal(run("--help", "s.lua").stderr, "", "--help runs nothing")

    pathlib.Path("long.lua").write_text(SWEEP.replace('"prompt " .. i', '("long "):rep(5000)').replace("s.csv", "long.csv"))
    equal("requests failed in 8 of 8 runs; the first: " in run("long.lua").stderr, True, "refused requests are told of")

    rows = list(csv.DictReader(open("s.csv", newline="")))
    equal(len(rows), 8, "a row a run")
    equal({(r["scheduler"], r["n"]) for r in rows}, {(s, n) for s in ("fcfs", "sjf") for n in "12"}, "factors")
    equal({float(r["output_tokens"]) for r in rows if r["n"] == "2"}, {8.0}, "metrics")

    pathlib.Path("one.lua").write_text(ONE)
    equal(run("one.lua").stdout, "1\tfalse\n", "a run")
    equal(run("one.lua").stdout, "2\tfalse\n", "another")
    equal(run("--resume", "one.lua").stdout, "2\ttrue\n", "--resume")
    if "--resume" not in run("--resum", "one.lua", check=False).stderr:
        sys.exit("--resume is not suggested")

    # A file from before runs had keys: nothing in it is known, and it is brought up to date.
    pathlib.Path("results/one.db").unlink()
    old = sqlite3.connect("results/one.db")
    for file in sorted((source / "schemas").glob("*.sql"))[:3]:
        old.executescript(file.read_text())
    old.execute("pragma user_version = 3")
    old.execute("insert into run (id, uid, started_at, state, seed) values (7, 'u', 0, 'done', 1)")
    old.commit()
    old.close()
    equal(run("--resume", "one.lua").stdout, "8\tfalse\n", "an older file")
    equal(run("--resume", "one.lua").stdout, "8\ttrue\n", "brought up to date")

    # Ctrl-C: the sweep says how far it came, and goes on from there.
    for name, text in ("slow", SLOW), ("together", TOGETHER):
        stop_it(name, text)

    sys.path.pop(0)  # this folder has a tokenize.py, and pandas wants Python's
    try:
        import pandas  # noqa: F401
    except ModuleNotFoundError:
        print("scripts/lathe.py was not tested: pandas is absent (apt install python3-pandas)")
        sys.exit(0)
    sys.path.insert(0, str(source / "scripts"))
    sys.dont_write_bytecode = True
    import lathe as frames

    latency = frames.latency("results/s.db")
    equal(len(latency), 24, "a row a run")
    equal(latency.groupby(["scheduler", "n"]).size().tolist(), [6, 6, 6, 6], "factors are columns")
    equal(latency[latency.n == 2].output_tokens.unique().tolist(), [8], "figures")
    requests = frames.requests("results/s.db", "run_id <= 8")
    equal(len(requests), 12, "requests")
    equal(bool((requests.ttft_ms > 0).all()), True, "latencies")
    equal(set(frames.steps("results/s.db").columns) >= {"ms", "waiting", "scheduler"}, True, "steps")
    equal(len(frames.runs("results/slow.db", "state = 'failed'")), 1, "runs")
    try:
        frames.runs("nowhere.db")
        sys.exit("expected FileNotFoundError")
    except FileNotFoundError as error:
        equal("no such database" in str(error), True, str(error))
