#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/probe_effect.lua, small: what is recorded changes no decision and no token."""
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


with tempfile.TemporaryDirectory() as folder:
    words = [lathe, "run", "--quiet", str(source / "experiments/probe_effect.lua"), "--", "--simulated", "300", "--requests", "20",
             "--rounds", "3"]
    r = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    print(r.stdout, r.stderr)
    check("it ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    if r.returncode:
        sys.exit(1)
    v = re.search(r"300 requests, (\d+) preemptions: (\d+) of (\d+) figures and (\d+) of (\d+) rows differ", r.stdout)
    check("virtual time: no figure and no row differs", v and int(v[2]) == int(v[4]) == 0 and int(v[3]) > 100 and int(v[5]) > 10000)
    check("with preemption", v and int(v[1]) > 0)
    a = re.search(r"at once: (\d+) of (\d+) answers and (\d+) of (\d+) rows", r.stdout)
    check("real time, all at once: no answer and no decision differs", a and int(a[1]) == int(a[3]) == 0 and int(a[2]) == 240
          and int(a[4]) > 500)
    check("it says so", "traced run decides the same, to the nanosecond" in r.stdout and "decides and says the same" in r.stdout)
    check("costs with intervals, and places", r.stdout.count("95% interval") >= 7 and r.stdout.count("between two runs alike") == 2)
    db = sqlite3.connect(pathlib.Path(folder) / "results/probe_effect.db")
    levels = dict(db.execute("""select json_extract(config, '$.trace.rows'), count(distinct t.request_id)
        from run r left join token t on t.run_id = r.id where clock = 'virtual' group by 1"""))
    check("each level of rows was there, and the last has tokens", levels == {"requests": 0, "steps": 0, "step_requests": 0, "tokens": 300})
    check("attention was recorded", db.execute("select count(*) from attention_token").fetchone()[0] > 1000)
    db.close()
sys.exit(1 if failures else 0)
