#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/sim_fidelity.lua with a simulation of known costs in the model's place: tables predict it exactly,
straight lines don't, and either way it is said."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
TRUTH = """prefill_context_ns = 40
decode_us = 60
decode_context_ns = 700
rows_us = 1:6200, 2:7800, 4:8300, 6:11000, 8:11500, 9:24000, 12:22000, 16:27000, 32:42000, 64:68000, 128:130000, 512:520000
rest_us = 1:2900, 2:2700, 3:6300
outputs_us = 1:1700, 2:2500, 8:4600
"""
failures = []


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


with tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / "truth.profile").write_text(TRUTH)

    def run(*options):
        r = subprocess.run([lathe, "run", "--quiet", str(source / "experiments/sim_fidelity.lua"), "--", "--truth", "truth.profile",
                            "--requests", "40", *options], cwd=folder, capture_output=True, text=True, timeout=300)
        print(r.stdout, r.stderr)
        check("it ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
        return r.stdout

    text = run()
    errors = [float(e) for e in re.findall(r" ([+-]\d+\.\d) +\d+\.\d  (?:yes|MISSED)", text)]
    check("five runs of six figures", len(errors) == 30)
    check("all are predicted", "30 of 30 figures are within what is allowed." in text and "MISSED" not in text)
    check("to a tenth of a percent", all(abs(e) <= 0.1 for e in errors))
    check("it says how the machine drifted", "took +0.0% to +0.0% of its first time" in text)

    text = run("--form", "line", "--repeats", "2", "--report")
    check("a line misses", re.search(r"\| MISSED \|", text) and re.search(r"missed:\n  .* of (fcfs|srpt) ", text))
    check("as Markdown", "| --- | --- | ---: |" in text and len(re.findall(r"^\| (?:fcfs|srpt) ", text, re.M)) == 30)
sys.exit(1 if failures else 0)
