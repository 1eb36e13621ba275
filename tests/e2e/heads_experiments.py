#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""induction_heads, attention_sinks and what_did_the_slow_token_see, small, on the real model: each ends well and its known result
has the right sign. Induction heads and sinks are those of the reference (tests/data/golden_heads.json)."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
model = source / "models/smollm2-135m.gguf"
if not model.exists():
    print("skip: no models/smollm2-135m.gguf")
    sys.exit(77)
golden_file = source / "tests/data/golden_heads.json"
golden = json.loads(golden_file.read_text(encoding="utf-8"))
failures = []


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


def run(folder, name, *options, well=True):
    # The reference computes in float32, and so does this.
    words = [lathe, "run", "--quiet", "--set", "model=llama:compute=exact", str(source / f"experiments/{name}.lua"), "--", "--model", str(model), *map(str, options)]
    r = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=550)
    print(r.stdout, r.stderr)
    if well:
        check(f"{name} ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
        check(f"{name} says what would change it", "\nWhat would change this: " in r.stdout)
    else:
        check(f"{name} {' '.join(map(str, options))}: one sentence", r.returncode == 1 and r.stderr.count("\n") == 1)
    return r.stdout


def ask(folder, name, query):
    r = subprocess.run([lathe, "sql", str(pathlib.Path(folder) / f"results/{name}.db"), query, "--format", "json"], capture_output=True, text=True,
                       timeout=300)
    check("asked: " + query[:60], r.returncode == 0)
    return json.loads(r.stdout)


def induction(folder):
    out = run(folder, "induction_heads", "--sequences", 3, "--length", 16, "--ablated", 3, "--heads", 5, "--draws", 1)
    scores = [float(v) for v in re.findall(r"^ +\d+ +\d+ +([\d.]+)(?:  removed)?$", out, re.M)]
    check("ten heads, the most first", len(scores) == 10 and scores == sorted(scores, reverse=True) and scores[0] > 0.5)
    rise = {(how, heads): tuple(map(float, figures)) for how, heads, *figures in
            re.findall(r"^(output 0|mean of values) +(\w+) +([-+][\d.]+) \(\S+ to \S+\) +([-+][\d.]+) \((\S+) to \S+\)$", out, re.M)}
    check("six rows", len(rise) == 6)
    for how in ("output 0", "mean of values"):
        check(f"{how}: without them copying ends", rise[how, "induction"][1] > 2 and rise[how, "difference"][2] > 0)
        check(f"{how}: random heads of the same layers matter less", rise[how, "random"][1] < rise[how, "induction"][1] / 2)
        check(f"{how}: the first half hardly changes", abs(rise[how, "induction"][0]) < 1)
    run(folder, "induction_heads", "--ablated", 2, well=False)
    run(folder, "induction_heads", "--golden", "nowhere.json", well=False)


def induction_of_the_reference(folder):
    out = run(folder, "induction_heads", "--golden", golden_file, "--ablated", 0)
    check("its own report says so", "(within 0.01); of the best 10, 0 are not its own" in out)
    rows = ask(folder, "induction_heads", "select layer, head, score from which_heads_look_at_the_token_after_the_previous_occurrence"
               " where run_id = (select max(id) from run) order by score desc")
    theirs = golden["induction"]
    check("a row a head", len(rows) == sum(map(len, theirs)))
    check("scores within 0.01", max(abs(r["score"] - theirs[r["layer"]][r["head"]]) for r in rows) <= 0.01)
    least = golden["top"][9][2]
    check("the best ten are its own, up to ties of 0.02", all(theirs[r["layer"]][r["head"]] >= least - 0.02 for r in rows[:10]))


def sinks(folder):
    out = run(folder, "attention_sinks", "--texts", 3, "--tokens", 256, "--answer", 24)
    check("sinks lead", [float(v) for v in re.findall(r"^ +\d+ +\d+ +([\d.]+) ", out, re.M)][0] > 0.9)
    for label, key in (("plain", "plain"), ("special token in front", "special")):
        rows = ask(folder, "attention_sinks", "select layer, head, first_mass, uniform, queries from which_heads_are_sinks where run_id ="
                   f" (select id from run where label = '{label}')")
        theirs = golden["sinks"][key]
        check(f"{label}: a row a head", len(rows) == sum(map(len, theirs)))
        check(f"{label}: masses within 0.01", max(abs(r["first_mass"] - theirs[r["layer"]][r["head"]]) for r in rows) <= 0.01)
        check(f"{label}: uniform", abs(rows[0]["uniform"] - golden["sinks"]["uniform"]) < 1e-5 and rows[0]["queries"] == 3 * (256 - 64))
    first, other = (float(v) for v in re.search(r"perplexity ([\d.]+) × .*\n?.*instead ([\d.]+) ×", out).groups())
    check("the first key is missed more than another", first > other)
    run(folder, "attention_sinks", "--answer", 143, well=False)


def slow(folder):
    out = run(folder, "what_did_the_slow_token_see", "--chats", 4, "--tokens", 10, "--rate", 8, "--long", 128, "--every", 0.3)
    rows = re.findall(r"^ +\d+ +\d+ +\".*?\" +(\d+) +(\d+) +(request \d+, \d+ of its prompt|nobody) ", out, re.M)
    check("a row an answer", len(rows) == 4)
    check("the slowest token is slower than usual", int(rows[0][0]) > int(rows[0][1]))
    check("and somebody joined its step", rows[0][2] != "nobody")
    shares = [int(v) for v in re.search(r"gaps (\d+)% had a prompt in their step, of the others (\d+)%", out).groups()]
    check("slow tokens have company more often than others", shares[0] > shares[1])


with tempfile.TemporaryDirectory() as place:
    for part in (induction, induction_of_the_reference, sinks, slow):
        part(place)
if failures:
    raise SystemExit(f"{len(failures)} failed: {'; '.join(failures)}")
