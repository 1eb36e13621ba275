#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/prefix_cache.lua and kv_waste.lua, small: what they print is what must come out."""
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


def run(name, *options):
    with tempfile.TemporaryDirectory() as folder:
        words = [lathe, "run", "--quiet", str(source / "experiments" / (name + ".lua")), "--", *options]
        r = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    print(r.stdout, r.stderr)
    check(f"{name} {' '.join(options)}: it ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    return r.stdout


def loads(text):
    return {m[1]: [float(x) for x in m[2].split()] for m in re.finditer(r"^(apart|system|conversation) +([\d. ]+)$", text, re.M)}


def prefix_cache():
    text = run("prefix_cache", "--sessions", "40", "--seeds", "2")
    rows = loads(text)
    check("three loads", len(rows) == 3)
    if len(rows) != 3:
        return
    check("apart there is nothing to find", rows["apart"][:2] == [0, 0] and rows["apart"][2] == rows["apart"][3])
    for name in "system", "conversation":
        found, possible, paged, prefix = rows[name][:4]
        check(f"{name}: most of what is possible is found, and no more", possible - 6 < found <= possible and possible > 50)
        check(f"{name}: first tokens come sooner", prefix < paged)
    pools = re.findall(r"^ *(100|50|25)  (lru|lfu) +(fcfs|prefix) +([\d.]+)", text, re.M)
    check("nine pools", len(pools) == 9)
    check("less room finds less", float(pools[0][3]) > float(pools[6][3]) > 0)
    routers = dict(re.findall(r"^(random|least_loaded|prefix) +([\d.]+) +[\d.]+ +[\d.]+$", text, re.M))
    check("the router that keeps beginnings together finds more", float(routers["prefix"]) > float(routers["random"]) + 2)
    check("it says what would change it", "What would change this" in text)
    rows = loads(run("prefix_cache", "--clock", "real", "--model", "tiny", "--sessions", "4", "--rate", "20", "--think", "0.2", "--system", "64",
                     "--prompt", "10", "--answer", "6", "--context", "1024", "--seeds", "1"))
    check("in real time, too", len(rows) == 3 and rows["apart"][0] == 0 and rows["conversation"][0] > 10)


def kv_waste():
    text = run("kv_waste", "--requests", "120", "--together", "120")
    rows = {m[1]: [float(x) for x in m[2].split()] for m in re.finditer(r"^(paged, blocks of 16|paged, blocks of 16, all|contiguous, 2048)  +([\d. ]+)$", text, re.M)}
    check("three rows", len(rows) == 3)
    if len(rows) != 3:
        return
    paged, everything, reserved = rows["paged, blocks of 16"], rows["paged, blocks of 16, all"], rows["contiguous, 2048"]
    trace = [tuple(map(int, line.split(",")[1:3])) for line in (source / "experiments/data/sample_trace.csv").read_text().split()[1:121]]
    held = [p + o - 1 for p, o in trace]
    fit = [n for n in held if n <= 2048]

    def share(lengths, block):
        return 100 * sum(lengths) / sum(-(-n // block) * block for n in lengths)
    check("as many requests", (paged[0], everything[0], reserved[0]) == (len(fit), len(held), len(fit)))
    check("shares are what lengths and blocks say", abs(paged[1] - share(fit, 16)) < 0.006 and abs(everything[1] - share(held, 16)) < 0.006
          and abs(reserved[1] - share(fit, 2048)) < 0.006)
    check("more run at a time in blocks", paged[4] > reserved[4] and paged[5] > reserved[5])


prefix_cache()
kv_waste()
sys.exit(1 if failures else 0)
