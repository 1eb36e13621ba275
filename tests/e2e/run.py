#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe run` as a person meets it: help, options, --set, mistakes, interruption, kept rows."""
import json
import os
import pathlib
import pty
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

lathe = os.environ["LATHE"]
folder = tempfile.TemporaryDirectory()
here = pathlib.Path(folder.name)
failures = []


def write(name, text):
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def run(*words, **more):
    return subprocess.run([lathe, "run", *words], cwd=here, capture_output=True, text=True, timeout=120, **more)


def finish(process, seconds):
    """What it wrote; a process that does not end is ended, so that none is left behind."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-800:]}\n  stderr: {result.stderr[-800:]}")


def rows(database, query):
    connection = sqlite3.connect(here / database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def one_line(result):
    return result.stderr.count("\n") == 1 and "traceback" not in result.stderr


# ── help and the command line ────────────────────────────────────────────────────────────
r = run("--help")
check("--help", r.returncode == 0 and "usage: lathe run" in r.stdout, r)
r = run()
check("no script is bad usage", r.returncode == 2 and one_line(r), r)
r = run("no/such.lua")
check("a missing script is one sentence", r.returncode == 1 and "no/such.lua" in r.stderr and one_line(r), r)
r = run("--quite", "x.lua")
check("an unknown option suggests the nearest", r.returncode == 2 and "--quiet" in r.stderr, r)
r = run("a.lua", "b.lua")
check("two scripts are bad usage", r.returncode == 2 and "b.lua" in r.stderr, r)

experiment = write("experiments/table.lua", """-- What is asked here?
-- SPDX-License-Identifier: MIT
return {
  options = { rate = { default = 2.5, help = "arrivals", unit = "requests/s", min = 0.1 }, count = { default = 3, help = "how many" },
              fast = { default = false, help = "hurry" }, name = { default = "x", help = "a word" } },
  prepare = function(o) return { n = o.count } end,
  run     = function(o, s)
    if o.name == "fail" then error "on purpose" end
    return s.n * 2
  end,
  report  = function(o, result) print(("%s %d %s %s"):format(o.rate, result, o.fast, o.name)) end,
  cleanup = function(o) print("cleaned " .. o.name) end,
}
""")
r = run(experiment)
check("a returned table runs with defaults", r.returncode == 0 and r.stdout == "2.5 6 false x\ncleaned x\n", r)
r = run(experiment, "--", "--rate", "4", "--count=5", "--fast", "--name", "y")
check("options override", r.returncode == 0 and r.stdout == "4 10 true y\ncleaned y\n", r)
r = run(experiment, "--help")
check("--help shows question and options", r.returncode == 0 and "What is asked here?" in r.stdout and "--rate" in r.stdout
      and "requests/s" in r.stdout and "cleaned" not in r.stdout, r)
r = run(experiment, "--", "--rte", "4")
check("an unknown script option suggests the nearest", r.returncode == 2 and "--rate" in r.stderr and one_line(r), r)
r = run(experiment, "--", "--rate", "quick")
check("a wrong type is bad usage", r.returncode == 2 and "quick" in r.stderr and one_line(r), r)
r = run(experiment, "--", "--rate", "0")
check("a wrong range is bad usage", r.returncode == 2 and "at least 0.1" in r.stderr, r)
r = run(experiment, "--", "--rate")
check("a missing value is bad usage", r.returncode == 2 and "--rate" in r.stderr, r)
r = run(experiment, "--", "--name", "fail")
check("cleanup runs after an error, whose line is kept", r.returncode == 1 and "cleaned fail" in r.stdout
      and "table.lua:8: on purpose" in r.stderr and one_line(r), r)
r = run(write("wrong.lua", "return { run = function() end, prepair = 1 }"))
check("an unknown hook suggests the nearest", r.returncode == 1 and "prepare" in r.stderr, r)

plain = write("plain.lua", """-- A plain one?
local lathe = require "lathe"
local o = lathe.options { tokens = { default = 4, help = "of output" } }
local r = lathe.run { model = lathe.model "tiny", workload = { { prompt = "hello", output_tokens = o.tokens } } }
print(#r:outputs()[1].tokens, r:query "select name from plugin where run_id = :run and kind = 'scheduler'" [1].name,
      r:query "select json_extract(options, '$.block_tokens') as b from plugin where run_id = :run and kind = 'kvcache'" [1].b)
""")
r = run("-q", plain, "--", "--tokens", "7")
check("lathe.options in a plain script", r.returncode == 0 and r.stdout.startswith("7\tfcfs") and r.stderr == "", r)
r = run("-q", plain, "--help")
check("--help runs nothing", r.returncode == 0 and "A plain one?" in r.stdout and "--tokens" in r.stdout and "fcfs" not in r.stdout, r)
r = run("-q", "--set", "scheduler=sjf", "--set=kvcache=:block_tokens=64", plain)
check("--set overrides every run", r.returncode == 0 and r.stdout == "4\tsjf\t64\n", r)
r = run("--set", "schedular=sjf", plain)
check("--set names the nearest kind", r.returncode == 2 and "scheduler" in r.stderr, r)
r = run("--set", "scheduler=sjv", plain)
check("--set with an unknown plugin", r.returncode == 1 and "sjf" in r.stderr and one_line(r), r)
r = run("--set", "scheduler", plain)
check("--set without a value", r.returncode == 2 and one_line(r), r)
r = run(plain)
check("without a terminal progress is plain lines", r.returncode == 0 and "1/1 requests" in r.stderr and "\r" not in r.stderr
      and "\033" not in r.stderr, r)
master, slave = pty.openpty()
r = subprocess.run([lathe, "run", plain], cwd=here, stdout=subprocess.PIPE, stderr=slave, text=True, timeout=60)
os.close(slave)
shown = os.read(master, 65536).decode()
check("on a terminal progress is a bar that redraws itself", r.returncode == 0 and "\r" in shown and "[####" in shown
      and "1/1 requests" in shown and shown.rstrip("\r\n").count("\n") == 0)
r = run("-q", "--database", "other/place.db", plain)
check("--database", r.returncode == 0 and (here / "other/place.db").exists(), r)

r = run(write("asked.lua", """-- Not this?
return { question = "This one?", run = function() local lathe = require "lathe"
  lathe.run { model = lathe.model "tiny", workload = { { prompt = "", max_tokens = 2 }, { prompt = "x", max_tokens = 2 } } } end }
"""))
check("an experiment's question is its runs'", rows("results/asked.db", "select question from run") == [("This one?",)], r)
check("requests that failed are told", r.returncode == 0 and "1 of 2 requests failed; request 1: " in r.stderr, r)

# ── errors in Lua ────────────────────────────────────────────────────────────────────────
r = run(write("syntax.lua", "local x = = 3\n"))
check("a syntax error has its line", r.returncode == 1 and "syntax.lua:1:" in r.stderr and one_line(r), r)
r = run(write("strict.lua", "local a = 1\nprint(b)\n"))
check("an undeclared name has its line", r.returncode == 1 and "strict.lua:2:" in r.stderr and one_line(r), r)
r = run(write("object.lua", "error({ code = 1 })\n"))
check("an error that is no text", r.returncode == 1 and one_line(r), r)
bytecode = here / "bytecode.lua"
bytecode.write_bytes(b"\x1bLua" + bytes(64))
r = run("bytecode.lua")
check("bytecode is refused", r.returncode == 1 and one_line(r), r)
r = run(write("debug.lua", "local function f() error 'deep' end\nf()\n"), env={**os.environ, "LATHE_LOG": "debug"})
check("LATHE_LOG=debug adds the traceback", r.returncode == 1 and "stack traceback" in r.stderr, r)
write("lathe/core.lua", "error 'a decoy'")
write("lathe.lua", "error 'a decoy'")
r = run("-q", plain)
check("a decoy beside the script is not the library", r.returncode == 0, r)

# ── rows outlive the script ──────────────────────────────────────────────────────────────
r = run("-q", write("cut.lua", """local lathe = require "lathe"
lathe.run { model = lathe.model "tiny", workload = { { prompt = "hello", output_tokens = 3 } } }
error "after the run"
"""))
check("an error after a run keeps its rows", r.returncode == 1 and "cut.lua:3: after the run" in r.stderr
      and rows("results/cut.db", "select state, (select count(*) from token where run_id = run.id and kind = 'output') from run") == [("done", 3)], r)

r = run("-q", write("failing.lua", """local lathe = require "lathe"
lathe.run { model = lathe.model { "tiny", fail_after = 3 }, workload = { { prompt = "hello", output_tokens = 30 } , { prompt = "x", at = 0.2, output_tokens = 2 } } }
"""))
found = rows("results/failing.db", "select finish_reason, output_tokens from request order by id")
check("a failing forward fails its requests, and their rows stay", len(found) == 2 and found[0][0] == "error" and found[0][1] >= 1, r)

slow = write("slow.lua", """local lathe = require "lathe"
print "begun"
io.stdout:flush()
lathe.run { model = lathe.model { "tiny", delay_us = 20000 }, label = "slow", workload = { { prompt = "hello", output_tokens = 400 } },
            engine = { context_tokens = 1024 } }
print "not reached"
""")
for name, number in (("SIGINT", signal.SIGINT), ("SIGTERM", signal.SIGTERM)):
    process = subprocess.Popen([lathe, "run", slow], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(number)
    out, err = finish(process, 30)
    last = rows("results/slow.db", "select id, state, (select count(*) from token where run_id = run.id) from run order by id desc limit 1")[0]
    events = rows("results/slow.db", f"select message from event where run_id = {last[0]}")
    check(f"{name} ends a run in good order", process.returncode == 1 and "interrupted" in err and "slow.lua:4:" in err
          and "not reached" not in out and time.monotonic() - began < 5 and last[1] == "failed" and last[2] > 5
          and any("interrupted" in e[0] for e in events))
    if process.returncode != 1 or last[1] != "failed":
        print(out, err, last, events)

process = subprocess.Popen([lathe, "run", write("loop.lua", "io.write 'x\\n' io.stdout:flush()\nwhile true do io.stdout:flush() end\n")], cwd=here,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
process.stdout.readline()
process.send_signal(signal.SIGINT)
_, err = finish(process, 10)
check("Ctrl-C ends a loop in Lua", process.returncode == 1 and "interrupted" in err)

# ── a folder that can't be written ───────────────────────────────────────────────────────
write("blocked/results", "a file where the folder should be")
r = subprocess.run([lathe, "run", "-q", str(here / "plain.lua")], cwd=here / "blocked", capture_output=True, text=True)
check("results that can't be written are one sentence", r.returncode == 1 and "results" in r.stderr and one_line(r), r)
write("text.db", "this is no database, it only looks like one from afar\n" * 100)
r = run("-q", "--database", "text.db", plain)
check("a file that is no database is one sentence", r.returncode == 1 and "text.db" in r.stderr and one_line(r), r)

# ── what is shipped ──────────────────────────────────────────────────────────────────────
source = pathlib.Path(os.environ["LATHE_SOURCE"])
r = run(str(source / "experiments/data/make_sample_trace.lua"))
check("the sample trace is what its script makes", r.stdout == (source / "experiments/data/sample_trace.csv").read_text(), r)

r = run("-q", write("log.lua", """local lathe = require "lathe"
local model = lathe.model "tiny"
local kept = {}
for i = 1, 3 do
  kept[i] = lathe.run { model = model, workload = { { prompt = "hello", output_tokens = 3 } } }
  assert(kept[i]:query "select count(*) as n from token where run_id = :run" [1].n == 3)
end
"""))
check("no write-ahead log is left beside the file", r.returncode == 0 and [p.name for p in here.glob("results/log.db*")] == ["log.db"]
      and rows("results/log.db", "select count(*) from run") == [(3,)], r)

argv = json.loads(rows("results/plain.db", "select argv from run order by id limit 1")[0][0])
check("the command line is in the run's row", argv[:3] == ["lathe", "run", "-q"] and argv[-1] == "7")
sys.exit(1 if failures else 0)
