#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""chunked_prefill, goodput and capacity, small: each ends well, and its known result has the right sign."""
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


def run(folder, name, *options, well=True):
    words = [lathe, "run", "--quiet", str(source / f"experiments/{name}.lua"), "--", *options]
    r = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=500)
    print(r.stdout, r.stderr)
    if well:
        check(f"{name} ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
        check(f"{name} says what would change it", "\nWhat would change this: " in r.stdout)
    return r


def refused(folder, name, what, *options):
    r = run(folder, name, *options, well=False)
    check(f"{name}: {what} is one sentence", r.returncode == 1 and r.stderr.count("\n") == 1)


def chunked_prefill(folder):
    r = run(folder, "chunked_prefill", "--loads", "0.6", "--chunks", "128,512,2048", "--requests", "120", "--seeds", "3",
            "--svg", "chunks.svg")
    # p50 of gaps, p99 of gaps, median TTFT: value ± half, value ± half, value ± half
    rows = re.findall(r"^ *(\d+|whole) +0\.6 +3 +([\d.e+]+) ± \S+ +([\d.e+]+) ± \S+ +([\d.e+]+) ±", r.stdout, re.M)
    gap, first = {row[0]: float(row[2]) for row in rows}, {row[0]: float(row[3]) for row in rows}
    check("four rows", sorted(gap) == ["128", "2048", "512", "whole"])
    check("the smaller the chunk, the shorter the longest gaps", gap["128"] < gap["512"] < gap["2048"])
    check("… and the later the first token", first["128"] > first["512"] > first["2048"])
    check("whole prompts first: first tokens soonest, gaps longer than with chunks",
          first["whole"] < first["512"] and gap["whole"] > 2 * gap["512"])
    check("drawn where gnuplot is", (pathlib.Path(folder) / "chunks.svg").exists() or "no plot" in r.stdout + r.stderr)
    refused(folder, "chunked_prefill", "a chunk that is none", "--chunks", "64,many")


def goodput(folder):
    def table(*options):
        r = run(folder, "goodput", "--requests", "300", "--seeds", "2", "--precision", "0.1", *options)
        rows = re.findall(r"^(fcfs|sjf|edf) +(\w+) +([\d.]+) ± [\d.]+ +([\d.]+) ± [\d.]+$", r.stdout, re.M)
        return {f"{scheduler} {batching}": (float(at90), float(at99)) for scheduler, batching, at90, at99 in rows}

    usual, strict = table("--svg", "goodput.svg"), table("--tpot", "0.025")
    check("six configurations", len(usual) == 6 and len(strict) == 6)
    check("99% may ask less than 90%", all(at99 <= at90 for at90, at99 in usual.values()))
    check("request-level batching has least by far", 5 * usual["fcfs static"][0] < min(v[0] for k, v in usual.items() if "static" not in k))
    check("chunks beat whole prompts first", usual["fcfs chunked"][0] > usual["fcfs prefill_first"][0])
    check("stricter targets, less goodput", all(strict[k][0] < usual[k][0] for k in usual if "static" not in k))
    refused(folder, "goodput", "a profile that isn't there", "--profile", "abacus")


def capacity(folder):
    r = run(folder, "capacity", "--seeds", "2", "--speed", "5")
    rows = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +\d+$", r.stdout, re.M)
    check("the number and its neighbours", len(rows) == 3)
    met = [float(row[3]) for row in rows]
    check("more replicas, more within targets", met == sorted(met) and met[0] < met[2])
    needed = re.search(r"needs (\d+) replicas", r.stdout)
    check("the answer is the middle one", needed and needed.group(1) == rows[1][0])
    more = re.search(r"same rate needs ([-\d.]+) fewer", r.stdout)
    check("a Poisson process needs fewer", more and float(more.group(1)) > 0)
    scatter = re.search(r"dispersion of ([\d.]+)\.", r.stdout)
    check("since it comes in waves", scatter and float(scatter.group(1)) > 5)
    refused(folder, "capacity", "targets that nothing meets", "--seeds", "2", "--tpot", "0.001")


for experiment in chunked_prefill, goodput, capacity:
    with tempfile.TemporaryDirectory() as folder:
        experiment(folder)
sys.exit(1 if failures else 0)
