#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/lua_policy.lua, and a policy named on the command line."""
import os
import pathlib
import re
import sqlite3
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
failures = []


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


def run(folder, *words):
    return subprocess.run([lathe, "run", "--quiet", *words], cwd=folder, capture_output=True, text=True, timeout=500)


with tempfile.TemporaryDirectory() as folder:
    r = run(folder, str(source / "experiments/lua_policy.lua"), "--", "--requests", "60", "--rounds", "3")
    print(r.stdout, r.stderr)
    check("it ends well", r.returncode == 0 and r.stderr == "")
    check("it prints the policy", "return r.prompt_tokens + r.predicted" in r.stdout)
    check("C and Lua decided the same", "All three decided the same" in r.stdout)
    check("a cost a step, with an interval", re.search(r"makes a step -?[\d.]+ µs longer \(95% interval", r.stdout))
    db = sqlite3.connect(pathlib.Path(folder) / "results/lua_policy.db")
    check("nothing was dropped", db.execute("select sum(dropped_events) from run").fetchone() == (0,))
    check("what Lua did is written down", db.execute("""select count(distinct name) from metric
          where name in ('lua_instructions', 'lua_calls', 'lua_memory_bytes')""").fetchone() == (3,))
    db.close()

    script = pathlib.Path(folder) / "one.lua"
    script.write_text('local lathe = require "lathe"\nlathe.run { model = lathe.model "tiny", workload = { { prompt = "x" } } }\n')
    (pathlib.Path(folder) / "mine.lua").write_text("return { key = function(r) return options.a * r.id end }\n")
    r = run(folder, "--set", "scheduler=lua:file=mine.lua,options=a=2", str(script))
    check("a policy on the command line", r.returncode == 0 and r.stderr == "")
    r = run(folder, "--set", "scheduler=lua", str(script))
    check("no policy: one line", r.returncode == 1 and r.stderr.count("\n") == 1 and "give its policy" in r.stderr)
    if failures:
        print(r.stderr)
sys.exit(1 if failures else 0)
