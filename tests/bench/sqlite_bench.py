#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Weights a second that the SQLite extension reads, in the plain sqlite3 shell.

  python3 tests/bench/sqlite_bench.py build/release/lathe_sqlite.so            # a quarter of a minute
  python3 tests/bench/sqlite_bench.py OTHER.so --compare build/release/lathe_sqlite.so

A database of 30 × 9 heads is made: one request of whole rows of 120 positions (1,960,200 weights), and 40 of summaries and
the eight heaviest keys; then each question is asked three times. Times are the processor's, not the clock's: the best of
three of each. --compare asks both extensions in turn.
"""
import argparse
import json
import os
import pathlib
import random
import re
import sqlite3
import struct
import subprocess
import tempfile

LAYERS, HEADS, POSITIONS, OTHERS, TOP = 30, 9, 120, 40, 8
SOURCE = pathlib.Path(__file__).resolve().parents[2]
WEIGHTS = LAYERS * HEADS * POSITIONS * (POSITIONS + 1) // 2
SHORT = OTHERS * POSITIONS * LAYERS * HEADS

QUESTIONS = [  # name, rows that are read of the tables, query
    ("sum of all weights", WEIGHTS, "select sum(weight) from attention_weights where run_id = 1 and request_id = 1"),
    ("all weights by layer and head", WEIGHTS, "select layer, head, avg(weight) from attention_weights where run_id = 1 and request_id = 1 group by layer, head"),
    ("each weight with its key's token", WEIGHTS, "select count(*), sum(w.weight), sum(t.token) from attention_weights w join token t on t.run_id = w.run_id"
     " and t.request_id = w.request_id and t.position = w.key where w.run_id = 1 and w.request_id = 1"),
    ("each weight with both tokens' texts", WEIGHTS, "select count(*), sum(w.weight), sum(length(x.text) + length(y.text)) from token q join attention_weights w"
     " on w.run_id = q.run_id and w.request_id = q.request_id and w.position = q.position join token k on k.run_id = w.run_id and"
     " k.request_id = w.request_id and k.position = w.key join token_text x on x.run_id = q.run_id and x.token = q.token"
     " join token_text y on y.run_id = k.run_id and y.token = k.token where q.run_id = 1 and q.request_id = 1"),
    ("weights by the key's text", WEIGHTS, "select token_text(t.run_id, t.token) as text, sum(w.weight) from attention_weights w join token t on t.run_id = w.run_id"
     " and t.request_id = w.request_id and t.position = w.key where w.run_id = 1 and w.request_id = 1 group by t.token"),
    ("entropy of each row of weights", WEIGHTS, "select avg(entropy) from attention where run_id = 1 and request_id = 1"),
    ("one head's weights", POSITIONS * (POSITIONS + 1) // 2, "select sum(weight) from attention_weights where run_id = 1 and request_id = 1 and layer = 17 and head = 4"),
    ("one key's weights, of all heads", LAYERS * HEADS * POSITIONS, "select sum(weight) from attention_weights where run_id = 1 and request_id = 1 and key = 0"),
    ("the key before, query by query", LAYERS * HEADS * POSITIONS, "select sum(w.weight) from token t join attention_weights w on w.run_id = t.run_id and"
     " w.request_id = t.request_id and w.position = t.position and w.key = t.position - 1 where t.run_id = 1 and t.request_id = 1"),
    ("summaries by layer and head", SHORT, "select layer, head, avg(entropy), avg(first_mass) from attention where probe_id = 2 group by layer, head"),
    ("summaries with their tokens", SHORT, "select avg(a.entropy), sum(t.token) from token t join attention a on a.run_id = t.run_id and a.request_id = t.request_id"
     " and a.position = t.position - 1 where a.probe_id = 2"),
    ("heaviest keys with their tokens", SHORT * TOP, "select sum(w.weight), sum(t.token) from attention_weights w join token t on t.run_id = w.run_id and"
     " t.request_id = w.request_id and t.position = w.key where w.run_id = 1 and w.probe_id = 3"),
]


def make(path):
    db = sqlite3.connect(path)
    schemas = sorted((SOURCE / "schemas").glob("[0-9]*.sql"))
    for file in schemas:
        db.executescript(file.read_text(encoding="utf-8"))
    db.execute(f"pragma user_version = {len(schemas)}")
    rng = random.Random(1)
    layers, heads = json.dumps(list(range(LAYERS)), separators=(",", ":")), json.dumps(list(range(HEADS)), separators=(",", ":"))
    db.execute("insert into run(id, uid, started_at, state, seed) values (1, 'u', 0, 'done', 0)")
    for i, form, top in ((1, "full", None), (2, "summary", None), (3, "top", TOP)):
        db.execute("insert into probe(run_id, id, layers, heads, format, top_k, recent_window, first_position, every_n_positions)"
                   " values (1, ?, ?, ?, ?, ?, 16, 0, 1)", (i, layers, heads, form, top))
    db.executemany("insert into token_text values (1, ?, ?)", [(t, f" word{t}") for t in range(1000)])
    for request in range(1, OTHERS + 2):
        db.executemany("insert into token(run_id, request_id, position, kind, token) values (1, ?, ?, 'prompt', ?)",
                       [(request, p, rng.randrange(1000)) for p in range(POSITIONS + 1)])
    for p in range(POSITIONS):
        parts = []
        for _ in range(LAYERS * HEADS):
            raw = [rng.random() ** 4 for _ in range(p + 1)]
            total = sum(raw)
            parts.append(struct.pack(f"<{p + 1}e", *(v / total for v in raw)))
        db.execute("insert into attention_token(run_id, request_id, position, step_id, probe_id, keys, data) values (1, 1, ?, 1, 1, ?, ?)", (p, p + 1, b"".join(parts)))
    for request in range(2, OTHERS + 2):
        for p in range(POSITIONS):
            summary = b"".join(struct.pack("<f4eI", 1.5, .5, .25, .125, .5, rng.randrange(p + 1)) for _ in range(LAYERS * HEADS))
            top = b"".join(struct.pack("<If", k if k <= p else 2**32 - 1, .5 / (k + 1) if k <= p else 0)
                           for _ in range(LAYERS * HEADS) for k in range(TOP))
            db.executemany("insert into attention_token(run_id, request_id, position, step_id, probe_id, keys, data) values (1, ?, ?, 1, ?, ?, ?)",
                           [(request, p, 2, p + 1, summary), (request, p, 3, p + 1, top)])
    db.commit()
    db.close()


def ask(extension, database, query):
    r = subprocess.run(["sqlite3", "-bail", str(database)], input=f".load {extension}\n.timer on\n{query};\n", capture_output=True, text=True)
    if r.returncode != 0:
        return float("nan"), r.stderr  # an older extension may lack a function
    spent = re.findall(r"user ([\d.]+) sys ([\d.]+)", r.stdout)
    return sum(float(s) for s in spent[-1]), re.sub(r"Run Time:.*\n", "", r.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("extension", help="lathe_sqlite.so")
    parser.add_argument("--compare", help="another, asked in turn")
    parser.add_argument("--keep", help="a database to keep and to use again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = pathlib.Path(args.keep or os.path.join(folder, "weights.db"))
        if not database.exists():
            make(database)
        print(f"{'':38} {'rows':>10} {'seconds':>8} {'million a second':>17}" + (f" {'compared':>9}" if args.compare else ""))
        for name, rows, query in QUESTIONS:
            best, other = 1e9, 1e9
            for _ in range(3):
                seconds, answer = ask(args.extension, database, query)
                best = min(seconds, best)
                if args.compare:
                    seconds, same = ask(args.compare, database, query)
                    other = min(seconds, other)
                    if answer != same and len(answer) < 200:
                        print(f"  answers differ: {answer.strip()} and {same.strip()}")
            more = f" {rows / 1e6 / max(other, 1e-3):9.1f}" if args.compare else ""
            print(f"{name:38} {rows:10,} {best:8.3f} {rows / 1e6 / max(best, 1e-3):17.1f}{more}", flush=True)


if __name__ == "__main__":
    main()
