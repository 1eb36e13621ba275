#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/kv_eviction.lua and quantized_kv.lua at a tiny size: their tables, what must come out whatever the machine, and rows."""
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


def run(folder, name, *options):
    r = subprocess.run([lathe, "run", "--quiet", str(source / f"experiments/{name}.lua"), "--", *options], cwd=folder,
                       capture_output=True, text=True, timeout=500)
    print(r.stdout, r.stderr)
    return r


def eviction(folder):
    r = run(folder, "kv_eviction", "--texts", "2", "--tokens", "96", "--budgets", "0.2", "--keys", "1", "--answer", "6", "--piece", "32")
    check("kv_eviction ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    rows = {name: values for name, *values in re.findall(
        r"^(full|window|sinks|sinks, original|h2o|random) +(\d+) +([\d.]+) +[\d.]+ +[\d.]+ +([\d.]+) +([\d.]+) +([\d.]+) +(\d) of 1 +(\d+)$",
        r.stdout, re.M)}
    check("it has a row of each policy", sorted(rows) == ["full", "h2o", "random", "sinks", "sinks, original", "window"])
    if len(rows) != 6:
        return
    times = {name: float(v[1]) for name, v in rows.items()}
    check("full attention is itself", times["full"] == 1 and rows["full"][6] == "100")
    check("a window without sinks is far worse than one with", times["window"] > 2 * times["sinks"] > 2)
    check("keys that are gone take no room", all(float(v[3]) < 0.3 * float(rows["full"][3]) for n, v in rows.items() if n != "full"))
    check("full attention retrieves the key", rows["full"][5] == "1")
    check("a window doesn't know what it has dropped", rows["window"][5] == "0")
    check("it says what was found, and what would change it", "What was found: " in r.stdout and "What would change this: " in r.stdout)
    with sqlite3.connect(pathlib.Path(folder) / "results/kv_eviction.db") as db:
        evicted = dict(db.execute("select label, evicted_tokens from kv_waste"))
        check("the rows say how much was dropped", evicted["full"] == 0 and evicted["window, 19"] == evicted["h2o, 19"] == 2 * (95 - 19))


def quantized(folder):
    r = run(folder, "quantized_kv", "--texts", "2", "--tokens", "40", "--answer", "4", "--rounds", "2")
    check("quantized_kv ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    rows = {name: [float(v) for v in values] for name, *values in re.findall(
        r"^(f32|f16|q8_0) +([\d.]+) +([\d.]+) +[\d.]+ +[\d.]+ +([\d.]+) +([\d.]+) +", r.stdout, re.M)}
    check("it has a row of each type", sorted(rows) == ["f16", "f32", "q8_0"])
    if len(rows) != 3:
        return
    check("KiB a position are those of the types", [rows[n][0] for n in ("f32", "f16", "q8_0")] == [45.0, 22.5, 11.95])
    check("eight bits move the tokens more than half precision, both little", 0 == rows["f32"][2] < rows["f16"][2] < rows["q8_0"][2] < 0.1)
    check("perplexity stays", all(abs(rows[n][1] - 1) < 0.02 for n in rows))


if not (source / "models/smollm2-135m.gguf").exists():
    print("skipped: there is no models/smollm2-135m.gguf")
    sys.exit(77)
with tempfile.TemporaryDirectory() as where:
    eviction(where)
    r = run(where, "kv_eviction", "--budgets", "2")
    check("a budget that is none is one sentence", r.returncode == 1 and "budgets: 2 should be" in r.stderr and r.stderr.count("\n") == 1)
    r = run(where, "kv_eviction", "--folder", "/nowhere")
    check("a folder without texts is one sentence", r.returncode == 1 and "--folder" in r.stderr and r.stderr.count("\n") == 1)
    quantized(where)
sys.exit(1 if failures else 0)
