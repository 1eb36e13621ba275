#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/disaggregation.lua, small: parting pays while the target of a token is tight, and moving is cheap."""
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


def run(folder, *options):
    words = [lathe, "run", "--quiet", str(source / "experiments/disaggregation.lua"), "--", *options]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)


with tempfile.TemporaryDirectory() as folder:
    r = run(folder, "--replicas", "4", "--prefill", "2,3", "--requests", "700", "--seeds", "3", "--transfers", "0,5000")
    print(r.stdout, r.stderr)
    check("it ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    if r.returncode:
        sys.exit(1)
    tables = [{m[1].strip(): float(m[2]) for m in re.finditer(r"^([\w ,]+?)  (?: +\d+){7}  ([\d.]+) (?:±|or more)", t, re.M)}
              for t in r.stdout.split("Requests within both targets")[1:]]
    check("a table a target, a row a system", [len(t) for t in tables] == [6, 6])
    tight, loose = tables
    apart, together = "3 prefill, 1 decode", "chunked 512"
    check("a tight TPOT: parting pays", tight[apart] > 1.2 * max(v for k, v in tight.items() if "decode" not in k))
    check("a loose one: it does not", loose[apart] < 1.05 * loose[together])
    check("small chunks buy TPOT with TTFT", tight["chunked 128"] > tight[together] and loose["chunked 128"] < loose[together])
    moving = {float(m[1]): float(m[2]) for m in re.finditer(r"^ +(\d+) +([\d.]+)  [+-]", r.stdout, re.M)}
    check("moving costs, until nothing is left", moving[0] >= tight[apart] - 0.5 and moving[5000] < 0.1 * moving[0])
    check("it says when it pays, with an interval", len(re.findall(r"^With TPOT within (20|60) ms", r.stdout, re.M)) == 2 and r.stdout.count("95% interval") == 3)
    for options, text in ((("--prefill", "4", "--replicas", "4"), "can't prefill"), (("--tpot", "soon"), "is no number")):
        r = run(folder, *options)
        check(f"{' '.join(options)}: one sentence", r.returncode == 1 and text in r.stderr and r.stderr.count("\n") == 1)
sys.exit(1 if failures else 0)
