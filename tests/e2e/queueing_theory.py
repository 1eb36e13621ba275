#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/queueing_theory.lua, small: its list holds, the same twice, and it would notice if it didn't."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
failures = []


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


def run(*options, stages=()):
    words = [lathe, "run", "--quiet", *stages, str(source / "experiments/queueing_theory.lua"), "--", *options]
    with tempfile.TemporaryDirectory() as folder:
        r = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    if r.stderr or r.returncode:
        print(r.stdout, r.stderr)
    return r


def rows(text):
    """quantity → (simulated, verdict)"""
    found = {}
    for line in text.splitlines():
        m = re.match(r"(\S.*?)  +(?:\d+\.\d+ +)?(\d+\.\d+) +(\d+\.\d+) .*  (yes|NO)$", line)
        if m:
            found[m[1]] = (float(m[2]), m[4])
    return found


small = ("--scale", "0.3", "--replications", "8")
r = run("--only", "M/M/1 ", "--coverage", "60", *small)
print(r.stdout)
check("it ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
table = rows(r.stdout)
check("it has ten claims of M/M/1", len(table) == 10)
check("all of them hold", r.stdout.rstrip().endswith("all 10 hold") and all(v == "yes" for _, v in table.values()))
for rho in "0.5", "0.8", "0.9":
    srpt, sjf, fcfs = (table[f"M/M/1 {name} at {rho}, mean response"][0] for name in ("SRPT", "SJF", "FCFS"))
    check(f"SRPT < SJF < FCFS at {rho}", srpt < sjf < fcfs)
covered = re.search(r"Of 60 intervals .* (\d+\.\d)% cover", r.stdout)
check("intervals cover the truth", covered and 85 <= float(covered[1]) <= 100)

again = run("--only", "M/M/1 ", "--coverage", "60", "--jobs", "1", *small)
check("one at a time or two at once, it is the same", again.stdout == r.stdout)
other = rows(run("--only", "M/M/1 ", "--coverage", "0", "--seed", "7", *small).stdout)
check("another seed is another sample", all(other[name][0] != table[name][0] for name in table))

r = run("--only", "M/M/10 ", "--coverage", "0", "--report", *small)
check("--report is Markdown", "| quantity | theory |" in r.stdout and "| M/M/10 at 0.9, mean wait | 0.66873 |" in r.stdout)

r = run("--only", "M/M/1 SJF at 0.9", "--coverage", "0", *small, stages=("--set", "scheduler=fcfs"))
check("a scheduler that isn't SJF is noticed", "1 of 1 don't hold: M/M/1 SJF at 0.9" in r.stdout)

r = run("--only", "nothing")
check("no such system is one sentence", r.returncode == 1 and "no system's name holds" in r.stderr and r.stderr.count("\n") == 1)
sys.exit(1 if failures else 0)
