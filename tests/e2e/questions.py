#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The views of schemas/007_questions.sql against plain Python, on a database made here: heads of every kind are put into it
by hand, with a second run whose cache dropped keys."""
import collections
import json
import math
import os
import pathlib
import random
import sqlite3
import struct
import subprocess
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
LAYERS, HEADS, N, BUDGET = (1, 3), (0, 2, 5), 90, 20
failures = []
rng = random.Random(6)


def check(what, condition, detail=""):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        print(f"  {detail}")


def half(x):
    return struct.unpack("<e", struct.pack("<e", x))[0]


def single(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def shares(raw):
    total = sum(raw)
    return [half(v / total) for v in raw]


def row(layer, head, position, tokens, keys):
    """Weights of one query: a head that copies, a sink, one for the token before, others that are vague."""
    raw = [rng.random() for _ in keys]
    for i, key in enumerate(keys):
        if (layer, head) == (3, 2) and 0 < key < position and tokens[key - 1] == tokens[position]:
            raw[i] += 30
        if (layer, head) == (1, 5) and key == 0:
            raw[i] += 60
        if (layer, head) == (1, 0) and key == position - 1:
            raw[i] += 40
    return shares(raw)


def near(a, b, tolerance=1e-6):
    return a is None and b is None or a is not None and b is not None and abs(a - b) <= tolerance * max(1, abs(b))


def ask(query):
    r = subprocess.run([lathe, "sql", str(path), query, "--format", "json"], capture_output=True, text=True, timeout=120)
    check("asked: " + query[:70], r.returncode == 0 and r.stderr == "", r.stderr)
    return json.loads(r.stdout) if r.returncode == 0 else []


def compare(view, where, key, expected):
    """expected: {key columns: {column: value}}"""
    rows = ask(f"select * from {view} where {where}")
    found = {tuple(r[k] for k in key): r for r in rows}
    check(f"{view}: its rows", len(rows) == len(found) and set(found) == set(expected), f"{sorted(found)} instead of {sorted(expected)}")
    for k, values in expected.items():
        for name, value in values.items():
            got = found.get(k, {}).get(name, "absent")
            same = near(got, value) if isinstance(value, float) and not isinstance(got, str) else got == value
            if not same:
                check(f"{view} {k}: {name}", False, f"{got} instead of {value}")
                return []
    return rows


# ---- the database ----

folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-questions-"))
path = folder / "x.db"
db = sqlite3.connect(path)
files = sorted((source / "schemas").glob("[0-9]*.sql"))
for file in files:
    db.executescript(file.read_text(encoding="utf-8"))
db.execute(f"pragma user_version = {len(files)}")
listed = (json.dumps(LAYERS), json.dumps(HEADS))
for run, label in ((1, "full"), (2, "evicting"), (3, "others")):
    db.execute("insert into run(id, uid, label, started_at, state, seed) values (?, ?, ?, 0, 'done', 0)", (run, f"u{run}", label))
    for probe, form, top, measure in ((1, "full", None, "weight"), (2, "full", None, "score"), (3, "top", BUDGET + 1, "weight"), (4, "summary", None, "weight")):
        db.execute("insert into probe(run_id, id, layers, heads, format, top_k, recent_window, first_position, every_n_positions, measure)"
                   " values (?, ?, ?, ?, ?, ?, 8, 0, 1, ?)", (run, probe, *listed, form, top, measure))
    db.executemany("insert into token_text values (?, ?, ?)", [(run, t, f"t{t}") for t in range(12)])
tokens, weights, kept, gaps = {}, {}, {}, {}
for request in (1, 2, 3):
    tokens[request] = [rng.randrange(12) for _ in range(N)]


def put(run, request, position, probe, keys, data):
    db.execute("insert into attention_token(run_id, request_id, position, step_id, probe_id, keys, data) values (?, ?, ?, ?, ?, ?, ?)",
               (run, request, position, position + 1, probe, keys, data))


for run in (1, 2, 3):
    for request in (1, 2, 3):
        db.execute("insert into request(run_id, id, priority, replica, planned_ns, arrival_ns, prompt_tokens, cached_tokens, output_tokens, preemptions, prompt_sha256)"
                   " values (?, ?, 0, 0, 0, 0, ?, 0, ?, 0, ?)", (run, request, N // 2, N // 2, "abc"))
        said = list(tokens[request])
        if run == 3 and request == 2:
            said[-1] = (said[-1] + 1) % 12  # not the same tokens
        for p, t in enumerate(said):
            out = p >= N // 2
            gap = rng.randrange(1000, 90000) * 1000 if p > N // 2 else None
            gaps[run, request, p] = gap
            db.execute("insert into token values (?, ?, ?, ?, ?, ?, ?, ?, ?)", (run, request, p, p if out else None, "output" if out else "prompt", t,
                                                                              p * 10**6 if out else None, gap, None))
for p in range(N + 1):
    for run in (1, 2, 3):
        db.execute("insert into step values (?, ?, 0, ?, ?, 1, 1, 1, 1, ?, ?, 3, 0, 0, 0, 0, 0, 0)", (run, p, p * 10**6, p * 10**6 + 700_000 + p, p % 5, p % 3))
for request in (1, 2):
    for p in range(N):
        for run in (1, 3):
            packed = b""
            for layer in LAYERS:
                for head in HEADS:
                    w = row(layer, head, p, tokens[request], range(p + 1))
                    weights[run, request, p, layer, head] = w
                    packed += struct.pack(f"<{p + 1}e", *w)
            put(run, request, p, 1, p + 1, packed)
            put(run, request, p, 2, p + 1, struct.pack(f"<{(p + 1) * 6}e", *([5.0] * ((p + 1) * 6))))  # scores: in no answer
        # run 2 saw two first and the last ones: whole rows, which don't say so, and the heaviest keys, which do
        seen = list(range(p + 1)) if p <= BUDGET else [0, 1, *range(p - BUDGET + 2, p + 1)]
        kept[request, p] = seen
        rows = {(a, h): row(a, h, p, tokens[request], seen) for a in LAYERS for h in HEADS}
        for (a, h), w in rows.items():
            weights[2, request, p, a, h] = dict(zip(seen, w))
        if p > BUDGET:
            put(2, request, p, 1, len(seen), b"".join(struct.pack(f"<{len(seen)}e", *w) for w in rows.values()))
        packed = b""
        for w in rows.values():
            order = sorted(zip(w, seen), key=lambda x: (-x[0], x[1]))
            packed += b"".join(struct.pack("<If", k, v) for v, k in order)
            packed += struct.pack("<If", 2**32 - 1, 0) * (BUDGET + 1 - len(seen))
        put(2, request, p, 3, len(seen), packed)
# request 3 of run 1: summaries alone
for p in range(N):
    put(1, 3, p, 4, p + 1, b"".join(struct.pack("<f4eI", 1 + a + h / 8, .5, .25, .125, .5, p // 2) for a in LAYERS for h in HEADS))
db.commit()
heads = [(a, h) for a in LAYERS for h in HEADS]


def weight(run, request, p, a, h, key):
    w = weights[run, request, p, a, h]
    return w[key] if run != 2 else single(w.get(key, 0.0))


# ---- induction and the token before ----

for run in (1, 2, 3):
    wanted, before = collections.defaultdict(list), collections.defaultdict(list)
    for request in (1, 2):
        said = list(tokens[request])
        if run == 3 and request == 2:
            said[-1] = (said[-1] + 1) % 12
        for p in range(N):
            last = max((q for q in range(p) if said[q] == said[p]), default=None)
            for a, h in heads:
                if last is not None and last < p - 1:
                    wanted[run, a, h].append(weight(run, request, p, a, h, last + 1))
                if p > 0:
                    before[run, a, h].append(weight(run, request, p, a, h, p - 1))
    found = compare("which_heads_look_at_the_token_after_the_previous_occurrence", f"run_id = {run}", ("run_id", "layer", "head"),
                    {k: {"score": sum(v) / len(v), "queries": len(v)} for k, v in wanted.items()})
    check("the head that copies is first", found and (found[0]["layer"], found[0]["head"]) == (3, 2), found[:1])
    check("best first", [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True))
    found = compare("which_heads_look_at_the_previous_token", f"run_id = {run}", ("run_id", "layer", "head"),
                    {k: {"score": sum(v) / len(v), "queries": len(v)} for k, v in before.items()})
    check("the head that looks back is first", found and (found[0]["layer"], found[0]["head"]) == (1, 0), found[:1])


# ---- sinks and depth ----

def entropy(w):
    return -sum(v * math.log(v) for v in w if v > 0)


sinks, depth = {}, {}
for a, h in heads:
    of_full = [weights[1, r, p, a, h] for r in (1, 2) for p in range(64, N)]
    mass = [w[0] for w in of_full] + [.5] * (N - 64)
    uniform = [1 / (p + 1) for _ in range(3) for p in range(64, N)]
    sinks[1, a, h] = {"first_mass": sum(mass) / len(mass), "uniform": sum(uniform) / len(uniform), "queries": len(mass), "first_token": f"t{tokens[1][0]}",
                      "times_uniform": sum(mass) / sum(uniform),
                      "entropy": (sum(map(entropy, of_full)) + (N - 64) * (1 + a + h / 8)) / len(mass)}
    all_of = [entropy(weights[1, r, p, a, h]) for r in (1, 2) for p in range(1, N)] + [1 + a + h / 8] * (N - 1)
    depth[a, h] = sum(all_of) / len(all_of)
found = compare("which_heads_are_sinks", "run_id = 1", ("run_id", "layer", "head"), sinks)
check("the sink is first", found and (found[0]["layer"], found[0]["head"]) == (1, 5), found[:1])
compare("entropy_by_depth", "run_id = 1", ("run_id", "layer"),
        {(1, a): {"entropy": sum(depth[a, h] for h in HEADS) / 3, "least": min(depth[a, h] for h in HEADS), "most": max(depth[a, h] for h in HEADS),
                  "heads": 3, "queries": 3 * (N - 1)} for a in LAYERS})

# ---- the slow token ----

slow = {}
for request in (1, 2, 3):
    p = max(range(N // 2 + 1, N), key=lambda q: gaps[1, request, q])
    of = sorted(gaps[1, request, q] for q in range(N // 2 + 1, N))
    wanted = {"position": p, "text": f"t{tokens[request][p]}", "gap_ms": of[-1] / 1e6, "step_id": p, "step_ms": (700_000 + p) / 1e6, "requests": p % 5,
              "usual_gap_ms": (of[len(of) // 2] + of[(len(of) - 1) // 2]) / 2e6, "prefill_tokens": p % 3}
    if request < 3:
        seen = [weights[1, request, p - 1, a, h] for a, h in heads]
        votes = collections.Counter(k for k in (w.index(max(w)) for w in seen) if k > 0)
        top, count = min(votes.items(), key=lambda x: (-x[1], x[0]))
        wanted |= {"entropy": sum(map(entropy, seen)) / 6, "first_mass": sum(w[0] for w in seen) / 6, "looked_at_position": top, "heads": count,
                   "looked_at": f"t{tokens[request][top]}",
                   "usual_entropy": sum(entropy(weights[1, request, q, a, h]) for q in range(N) for a, h in heads) / N / 6}
    slow[1, request] = wanted
compare("what_did_the_slow_token_see", "run_id = 1", ("run_id", "request_id"), slow)

# ---- evicted keys ----

evicted = {}
for full in (1, 3):
    for a, h in heads:
        requests = (1, 2) if full == 1 else (1,)  # request 2 said something else in run 3
        missing = [1 - sum(weights[full, r, p, a, h][k] for k in kept[r, p]) for r in requests for p in range(BUDGET + 1, N)]
        evicted[2, full, a, h] = {"queries": len(missing), "evicted_mass": sum(max(0, m) for m in missing) / len(missing), "most": max(missing),
                                  "evicted_keys": sum(p + 1 - len(kept[r, p]) for r in requests for p in range(BUDGET + 1, N)) / len(missing)}
compare("what_would_an_evicted_key_have_weighed", "1", ("run_id", "full_run_id", "layer", "head"), evicted)

# ---- every sample answer's columns are the view's ----

for name, sql in db.execute("select name, sql from sqlite_schema where type = 'view'").fetchall():
    samples = [line[2:].split("|") for line in sql.splitlines() if line.startswith("-- ") and "|" in line]
    if sql.splitlines()[0].split()[2] != name or not samples:
        check(f"{name} has a sample answer", False, sql[:200])
        continue
    columns = {r["name"] for r in ask(f"select name from pragma_table_info('{name}')")}
    titles = [c.strip() for c in samples[0]]
    check(f"{name}: the sample's columns are its own", len(samples) >= 2 and set(titles) <= columns, f"{set(titles) - columns}")
    check(f"{name}: a value for each", all(len(s) == len(titles) for s in samples[1:]), samples)

if failures:
    raise SystemExit(f"{len(failures)} failed: {'; '.join(failures)}")
for file in folder.iterdir():
    file.unlink()
folder.rmdir()
