#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/routing.lua, small: two choices beat none, and sessions stay where a router keeps them."""
import os
import pathlib
import re
import sqlite3
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
NAMES = ["random", "round_robin", "split", "prefix", "p2c 2", "p2c 3", "p2c 2 by tokens", "least_loaded", "central"]
failures = []


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


def run(folder, *options):
    words = [lathe, "run", "--quiet", str(source / "experiments/routing.lua"), "--", *options]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)


with tempfile.TemporaryDirectory() as folder:
    r = run(folder, "--replicas", "8", "--requests", "400", "--seeds", "6", "--sessions", "60")
    print(r.stdout, r.stderr)
    check("it ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    if r.returncode:
        sys.exit(1)
    p99 = {}
    for name in NAMES:
        row = re.search(rf"^ +8  {name} +[\d.]+  ([\d.]+) ± [\d.]+ +([\d.]+)$", r.stdout, re.M)
        check(f"it has a row of {name}", row)
        p99[name] = float(row[1])
    check("two choices beat a random one, by a third at least", p99["p2c 2"] < 0.67 * p99["random"])
    check("two choices beat taking turns", p99["p2c 2"] < p99["round_robin"])
    check("a third choice brings less than the second", p99["p2c 2"] - p99["p2c 3"] < p99["random"] - p99["p2c 2"])
    check("all of them are better than two", p99["least_loaded"] < p99["p2c 2"])
    stayed = {m[1]: float(m[2]) for m in re.finditer(r"^(p2c|least_loaded|prefix|split) +(\d+) +\d+  [\d.]+ ± ", r.stdout, re.M)}
    check("turns stay by prefix, altogether by session", stayed["split"] == 100 and stayed["prefix"] > 2 * stayed["p2c"])
    check("it says that no cache shares prefixes, and what would change it", "There is none here" in r.stdout and "What would change" in r.stdout)
    db = sqlite3.connect(pathlib.Path(folder) / "results/routing.db")
    counts = db.execute("""select distinct (select count(*) from request where run_id = run.id) from run
                           where label like '% of 8'""").fetchall()
    check("each router had all requests", counts == [(3200,)])
    db.close()
    r = run(folder, "--replicas", "many")
    check("a number that is none is one sentence", r.returncode == 1 and "is no number" in r.stderr and r.stderr.count("\n") == 1)
sys.exit(1 if failures else 0)
