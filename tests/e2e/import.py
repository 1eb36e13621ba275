#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe import`: another engine's steps as a run; experiments/calibrate.lua fits them, and its own."""
import hashlib
import os
import pathlib
import random
import sqlite3
import subprocess
import sys
import tempfile

lathe = os.environ["LATHE"]
calibrate = str(pathlib.Path(os.environ["LATHE_SOURCE"]) / "experiments/calibrate.lua")
folder = tempfile.TemporaryDirectory()
here = pathlib.Path(folder.name)
failures = []


def call(*words):
    return subprocess.run([lathe, *words], cwd=here, capture_output=True, text=True, timeout=300)


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-1500:]}\n  stderr: {result.stderr[-800:]}")


def one_line(result):
    return result.stderr.count("\n") == 1


def ask(database, query):
    connection = sqlite3.connect(here / database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


STEP = "select start_ns, end_ns, forward_ns, prefill_tokens, decode_tokens, decode_context_tokens, prefill_token_context, padding_tokens, requests from step"


def imported(text, *more):
    (here / "steps.csv").write_text(text)
    return call("import", "steps.csv", "-o", "x.db", *more)


r = imported("""start_s,end_s,prefill_tokens,decode_tokens,decode_context_tokens,prefill_token_context,padding_tokens,requests
100.5,100.5123,128,0,0,1000,3,1
100.6,100.75,0,8,4096,0,0,8

""", "--label", "two", "--engine", 'vllm "0.6"')
check("start and end", r.returncode == 0 and r.stderr == "" and r.stdout == "run 1 of x.db: 2 steps of steps.csv\n"
      and ask("x.db", STEP) == [(0, 12300000, 12300000, 128, 0, 0, 1000, 3, 1), (100000000, 250000000, 150000000, 0, 8, 4096, 0, 0, 8)], r)
check("the run", ask("x.db", "select label, experiment, state, clock, config from run") == [("two", "import", "done", "real", None)])
check("the engine is a factor", ask("x.db", "select name, value from run_factor") == [("engine", '"vllm \\"0.6\\""')])
check("the file is an artifact", ask("x.db", "select kind, name, uri, sha256 from artifact")
      == [("trace", "steps.csv", "steps.csv", hashlib.sha256((here / "steps.csv").read_bytes()).hexdigest())])
r = imported('\ufeff"decode_tokens", other ,duration_ms,prefill_tokens\r\n1,a,2.5,0\r\n2,b,1e1,7\r\n')
check("durations, one after another; other columns, quotes, CRLF and a byte order mark", r.returncode == 0 and ask("x.db", STEP
      + " where run_id = 2") == [(0, 2500000, 2500000, 0, 1, 0, 0, 0, 0), (2500000, 12500000, 10000000, 7, 2, 0, 0, 0, 0)], r)
r = imported("start_s,duration_s,prefill_tokens,decode_tokens\n3,0.5,1,0\n1,0.25,1,0")
check("start and duration, not in order", ask("x.db", "select start_ns, end_ns from step where run_id = 3") == [(2000000000, 2500000000), (0, 250000000)], r)

HEAD = "duration_s,prefill_tokens,decode_tokens,requests\n0.1,1,1,1\n"
for text, said in (("", "empty"), ("duration_s,prefill_tokens\n", "steps.csv:1: there is no column decode_tokens"),
                   ("duration_s,prefil_tokens,decode_tokens\n", 'prefill_tokens (is it "prefil_tokens"?)'),
                   ("end_s,prefill_tokens,decode_tokens\n1,1,1", "steps.csv:1: nothing says how long"), (HEAD.split("\n")[0] + "\n", "no steps"),
                   (HEAD + "0.1,x,1,1\n", 'steps.csv:3: prefill_tokens should be a whole number from 0, not "x"'),
                   (HEAD + "\n0.1,1.5,1,1\n", 'steps.csv:4: prefill_tokens'), (HEAD + "0.1,-1,1,1\n", "steps.csv:3: prefill_tokens"),
                   (HEAD + "soon,1,1,1\n", 'steps.csv:3: duration_s should be a number, not "soon"'), (HEAD + ",1,1,1\n", "steps.csv:3: duration_s"),
                   (HEAD + "0.1,1\n", "steps.csv:3: decode_tokens"), (HEAD + "nan,1,1,1\n", "steps.csv:3: duration_s"),
                   (HEAD + "1e300,1,1,1\n", "steps.csv:3: the step took"), (HEAD + "-1,1,1,1\n", "steps.csv:3: the step took -1 s"),
                   (HEAD + "0x10,1,1,1\n", "steps.csv:3: duration_s"), (HEAD + "0.1,1e99,1,1\n", "steps.csv:3: prefill_tokens"),
                   (HEAD + "0.1,1,1,1e2x\n", "steps.csv:3: requests"), (HEAD + ",".join("1" * 1000) + "\n" + "a,b", "steps.csv:4:")):
    r = imported(text)
    check(f"{text[-24:]!r}: one sentence", r.returncode == 1 and said in r.stderr and one_line(r), r)
r = imported(HEAD + "0.1,1,1,\n0.1,1,1\n")
check("what is left out is 0", r.returncode == 0 and [row[-1] for row in ask("x.db", STEP + " where run_id = 4")] == [1, 0, 0], r)
check("a bad file leaves nothing", ask("x.db", "select count(*), sum(state = 'done') from run") == [(4, 4)])
(here / "text.db").write_text("no database " * 500)
for words, status, said in (((), 2, "one CSV"), (("steps.csv",), 2, "-o"), (("nix.csv", "-o", "x.db"), 1, "nix.csv"), (("steps.csv", "-o", "text.db"), 1, "text.db"),
                            (("steps.csv", "-o", "x.db", "--lable", "y"), 2, "--label"), ((".", "-o", "x.db"), 1, "")):
    r = call("import", *words)
    check(f"import {' '.join(words)}: one sentence", r.returncode == status and said in r.stderr and one_line(r), r)
r = call("import", "--help")
check("--help", r.returncode == 0 and r.stdout.startswith("usage: lathe import"), r)
r = call("replay", "x.db", "1")
check("an imported run can't be replayed", r.returncode == 1 and "no configuration" in r.stderr and one_line(r), r)

# ── experiments/calibrate.lua ────────────────────────────────────────────────────────────
draw = random.Random(1)
lines = ["duration_ms,prefill_tokens,decode_tokens,decode_context_tokens,prefill_token_context"]
for _ in range(600):
    prefill, decode = draw.choice((0, draw.randrange(500))), draw.choice((0, draw.randrange(1, 30)))
    past, context = prefill * draw.randrange(1000), decode * draw.randrange(50, 900)
    us = 3000 + 40 * prefill + 0.06 * past + 110 * decode + 0.5 * context
    lines.append(f"{us * draw.lognormvariate(0, 0.02) / 1000:.6f},{prefill},{decode},{context},{past}")
r = imported("\n".join(lines), "--label", "known")
r = call("run", "-q", calibrate, "--", "--db", "x.db", "--run", "5", "--profile", "x.profile")
profile = {name: float(value) for name, value in (line.split(" = ") for line in (here / "x.profile").read_text().splitlines() if line[0] != "#")}
known = {"step_us": 3000, "prefill_us": 40, "prefill_context_ns": 60, "decode_us": 110, "decode_context_ns": 500}
check("an imported run is fitted", r.returncode == 0 and r.stderr == "" and all(abs(profile[k] / v - 1) < 0.1 for k, v in known.items())
      and abs(profile["noise"] - 0.02) < 0.005 and profile["padding_us"] == 0, r)
check("the profile has the names of a cost profile, in order",
      list(profile) == ["step_us", "floor_us", "prefill_us", "prefill_context_ns", "decode_us", "decode_context_ns", "padding_us", "noise"])
check("and says what it is of", "steps.csv" in (here / "x.profile").read_text() and "600 steps" in (here / "x.profile").read_text())
check("the report has kinds of steps", all(word in r.stdout for word in ("decode only", "prefill only", "mixed", "95% interval", "none of it was in")), r)
r = call("run", "-q", calibrate, "--", "--db", "x.db", "--run", "77")
check("a run without steps is one sentence", r.returncode == 1 and "no steps of run 77" in r.stderr and one_line(r), r)
r = call("run", "-q", calibrate, "--", "--model", "tiny", "--effort", "0.1", "--floor")
check("a model is measured and fitted", r.returncode == 0 and r.stderr == "" and "What was found:" in r.stdout
      and "step_us = " in (here / "results/calibrate.profile").read_text(), r)
check("both batchings ran", ask("results/calibrate.db", "select count(distinct name) from plugin where kind = 'batching'") == [(2,)])
check("with chunks, and 32 at once", ask("results/calibrate.db", "select max(decode_tokens), max(prefill_token_context) > 0 from step") == [(32, 1)])
sys.exit(1 if failures else 0)
