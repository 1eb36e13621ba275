#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/batching.lua: its known result within 3%, its comparison small, and the rows behind it on the tiny model."""
import os
import pathlib
import re
import sqlite3
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
NAMES = ["single", "static", "dynamic", "continuous", "prefill_first", "chunked", "memory_aware"]
failures = []


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


def run(folder, *options):
    words = [lathe, "run", "--quiet", str(source / "experiments/batching.lua"), "--", *options]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)


def virtual(folder):
    r = run(folder, "--requests", "200", "--places", "16", "--seeds", "4")
    print(r.stdout, r.stderr)
    check("it ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    # lengths, B, what order statistics say, what was simulated
    rows = re.findall(r"^(exponential|sample_trace\.csv) +(\d+) +([\d.]+) +([\d.]+) ", r.stdout, re.M)
    check("the known result has four rows", len(rows) == 4)
    for (lengths, size, expected, found), known in zip(rows, (2.72, 4.06, 2.53, 4.07)):
        check(f"{lengths}, {size} places: {known} is what order statistics say", abs(float(expected) - known) < 0.006)
        check(f"{lengths}, {size} places: simulated within 3%", abs(float(found) / float(expected) - 1) < 0.03)
    backlog = {name: float(speed) for name, speed in re.findall(r"^(\w+) +([\d.]+) +\d+ +[\d.]+ +\d+$", r.stdout, re.M)}
    check("a backlog is served by all seven", sorted(backlog) == sorted(NAMES))
    check("one at a time is slowest, static next, continuous quicker", backlog["single"] < backlog["static"] < backlog["continuous"])
    check("it says what was found, with intervals", len(re.findall(r"95% interval", r.stdout)) >= 1)
    check("one at a time can't keep up", re.search(r"^ *[\d.]+  single .* overloaded$", r.stdout, re.M))


def real(folder):
    r = run(folder, "--clock", "real", "--model", "tiny", "--rates", "200", "--requests", "20", "--prompt", "32", "--tokens", "24",
            "--delay-us", "500", "--window-ms", "5", "--places", "8", "--budget", "64", "--seeds", "2", "--known", "400")
    print(r.stdout, r.stderr)
    check("in real time, too", r.returncode == 0 and r.stderr == "")
    if r.returncode:
        return
    for name in NAMES:
        check(f"it has a row of {name}", re.search(rf"^ *200  {name} ", r.stdout, re.M))
    db = sqlite3.connect(pathlib.Path(folder) / "results/batching.db")

    def of(name, query):
        return db.execute(query.replace(":run", "(select min(id) from run where label = ? || ' at 200/s')"), (name,)).fetchone()[0]

    check("as many tokens from each", len({of(n, "select sum(output_tokens) from request where run_id = :run") for n in NAMES}) == 1)
    check("one at a time", of("single", "select max(requests) from step where run_id = :run") == 1)
    check("static computes padding", of("static", "select sum(padding_tokens) from step where run_id = :run") > 0)
    for name in "single", "continuous", "prefill_first", "chunked", "memory_aware":
        check(f"{name} computes none", of(name, "select sum(padding_tokens) from step where run_id = :run") == 0)
    check("dynamic computes less than static", of("dynamic", "select sum(padding_tokens) from step where run_id = :run")
          < of("static", "select sum(padding_tokens) from step where run_id = :run"))
    check("prefill_first never mixes", of("prefill_first", """select count(*) from step where run_id = :run
          and prefill_tokens > 0 and decode_tokens > 0""") == 0)
    check("chunked mixes, within its budget", of("chunked", """select count(*) from step where run_id = :run
          and prefill_tokens > 0 and decode_tokens > 0""") > 0
          and of("chunked", "select max(prefill_tokens + decode_tokens) from step where run_id = :run") <= 64)
    db.close()


with tempfile.TemporaryDirectory() as folder:
    virtual(folder)
with tempfile.TemporaryDirectory() as folder:
    real(folder)
    r = run(folder, "--rates", "fast")
    check("a rate that is none is one sentence", r.returncode == 1 and "is no rate" in r.stderr and r.stderr.count("\n") == 1)
sys.exit(1 if failures else 0)
