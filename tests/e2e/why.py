#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe why`: on databases made by hand, in which one cause is hidden, the paragraph names it and nothing else; where rows are
absent it says so; figures are those of the rows."""
import json
import os
import pathlib
import re
import sqlite3
import struct
import subprocess
import sys
import tempfile

lathe = os.environ["LATHE"]
source = pathlib.Path(os.environ["LATHE_SOURCE"])
folder = tempfile.TemporaryDirectory()
here = pathlib.Path(folder.name)
failures = []
MS = 1_000_000


def call(*words):
    return subprocess.run([lathe, "why", *words], cwd=here, capture_output=True, text=True, timeout=120)


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}", flush=True)
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-2500:]}\n  stderr: {result.stderr[-800:]}" if hasattr(result, "returncode") else f"  {result}")


def make(name, cause=None, steps=40, hops=True, rows="tokens", clock="real"):
    """Four requests of 8 tokens of prompt that decode together, a step each 30 ms: 1 to schedule, 1 to reserve, 25 of forward (1 of
    them on the bus), 2 to sample, 1 beside. At step 20 `cause` makes one thing slower by 60 ms. Requests have the tokens that
    the steps make of them."""
    path = here / f"{name}.db"
    path.unlink(missing_ok=True)
    db = sqlite3.connect(path)
    for schema in sorted((source / "schemas").glob("*.sql")):
        db.executescript(schema.read_text())
    db.execute(f"pragma user_version = {len(list((source / 'schemas').glob('*.sql')))}")
    db.execute("insert into run (id, uid, label, started_at, state, clock, seed) values (1, 'u1', 'made', 1000, 'done', ?, 1)", (clock,))
    at, hop, last = 0, 0, {}
    for step in range(1, steps + 1):
        slow = step == 20
        schedule, reserve, forward, bus, sample, beside = 1 * MS, 1 * MS, 24 * MS + step * 1000, 1 * MS, 2 * MS, 1 * MS
        members = [(r, "prefill" if step == 1 else "decode", 8 if step == 1 else 1, 0 if step == 1 else 7 + step) for r in (1, 2, 3, 4)]
        if slow:
            extra = 60 * MS
            if cause == "prefill":
                members.append((9, "prefill", 700, 0))
                forward += extra
            elif cause in ("machine", "batch"):
                forward += extra
                members += [(r, "decode", 1, 50) for r in range(20, 32)] if cause == "batch" else []
            schedule += extra * (cause == "schedule")
            reserve += extra * (cause == "reserve")
            bus += extra * (cause == "bus")
            sample += extra * (cause == "sample")
            beside += extra * (cause == "between")
            if cause == "between":
                db.execute("insert into service_event values (1, ?, 'model', 1, 'worker_died', 'killed by signal 9.')", (at + 35 * MS,))
            if cause == "preempted":  # request 2 sits out three steps, then has its tokens computed again
                members = [m if m[0] != 2 else (2, "prefill", 26, 0) for m in members]
        if cause == "preempted" and 17 <= step < 20:
            members = [m for m in members if m[0] != 2] + [(9, "prefill" if step == 17 else "decode", 40 if step == 17 else 1, 40)]
        if cause == "others" and 17 <= step < 20:
            members = [m for m in members if m[0] != 2]
        took = schedule + reserve + forward + bus + sample
        if rows != "requests":
            db.execute("insert into step values (1,?,0,?,?,?,?,?,?,?,?,?,0,?,0,?,?,100)", (step, at, at + took, schedule, reserve, forward + bus, sample, len(members),
                       sum(m[2] for m in members if m[1] == "prefill"), sum(m[1] == "decode" for m in members), sum(m[3] for m in members if m[1] == "decode"),
                       3 if cause == "schedule" else 0, 97 if cause == "reserve" else 40))
        for r, phase, tokens, context in members:
            if rows in ("tokens", "step_requests"):
                db.execute("insert into step_request values (1,?,?,?,?,?,?,1)", (step, r, phase, context, tokens, context))
            if rows == "tokens" and (r != 9 or cause == "preempted"):
                time = at + took
                db.execute("insert or ignore into token values (1,?,?,?,'output',?,?,?,-1.0)", (r, 7 + step, step, r, time, time - last[r] if r in last else None))
                last[r] = time
        if hops and rows != "requests":
            hop += 1
            start = at + schedule + reserve
            db.execute("insert into hop values (1,?,null,?,0,'model.forward',?,?,?,100,0,1)", (hop, step, start, start + bus, start + bus + forward))
            hop += 1
            db.execute("insert into hop values (1,?,null,?,0,'sampler.sample',?,?,?,100,0,1)", (hop, step, start + bus + forward, start + bus + forward, start + bus + forward + sample))
        at += took + beside
    for r in (1, 2, 3, 4, 9):
        due = 0 if r != 9 else 100 * MS
        db.execute("insert into request (run_id, id, priority, replica, planned_ns, arrival_ns, admitted_ns, first_token_ns, finish_ns, finish_reason, prompt_tokens, cached_tokens, "
                   "output_tokens, preemptions) values (1,?,0,0,?,?,?,?,?,'length',8,0,?,?)", (r, due, due, due, due + 30 * MS + r, at + (500 * MS if r == 3 and cause == "waiting" else r),
                                                                                               steps, int(r == 2 and cause == "preempted")))
        if cause == "preempted" and r == 2:
            t16, t20 = (db.execute("select start_ns, end_ns from step where id = ?", (n,)).fetchone() for n in (16, 20))
            db.executemany("insert into request_span values (1, 2, ?, ?, ?, ?)", [(0, t16[1], "running", "admitted"), (t16[1], t20[0], "preempted", "out of KV blocks"),
                                                                                  (t20[0], at, "running", "admitted")])
        else:
            db.execute("insert into request_span values (1, ?, ?, ?, 'running', 'admitted')", (r, due, at))
    db.executemany("insert into token_text values (1, ?, ?)", [(1, " one"), (2, "two\n"), (3, "three"), (4, "\x1b[31m")])
    db.commit()
    return db


# ── one cause each ───────────────────────────────────────────────────────────────────────
expected = {
    "prefill": ("forward", ["a prefill that joined", "request 9 (700 tokens, new in this step)", "most of what was computed", "700 tokens of prompts"]),
    "batch": ("forward", ["a larger batch: 16 requests decoded", "4 are usual"]),
    "machine": ("forward", ["the forward itself", "model or the machine was slower"]),
    "schedule": ("schedule", ["the scheduler", "3 requests waiting", "(61.0 ms, usually 1.00 ms)"]),
    "reserve": ("reserve", ["finding KV blocks", "97 of 100 in use"]),
    "sample": ("sample", ["the sampler"]),
    "bus": ("bus", ["the bus: the engine waited", "(61.0 ms, usually 1.00 ms)"]),
    "between": ("between", ["time between and beside", "Meanwhile the run was told: model: worker died: killed by signal 9."]),
    "preempted": ("preempted", ["preemption", "out of KV blocks", "request 9 (42 tokens)", "26 of them its own, computed again"]),
    "others": ("other_steps", ["steps went on without it", "request 1 (3 tokens)"]),
}
phrases = {"forward": "the forward", "schedule": "is the scheduler", "reserve": "is finding KV", "sample": "is the sampler", "bus": "is the bus", "between": "is time between",
           "preempted": "is preemption", "other_steps": "is that steps"}
for name, (cause, words) in expected.items():
    db = make(name, name)
    r = call(f"{name}.db")
    difference = re.search(r"What made the difference (is .*)", r.stdout)
    check(f"{name}: named", r.returncode == 0 and r.stderr == "" and difference and all(w in r.stdout for w in words) and r.stdout.count("\n") == 1, r)
    check(f"{name}: and nothing else", difference and not any(p in difference[1] for c, p in phrases.items() if c not in (cause, "forward")), r)
    j = json.loads(call(f"{name}.db", "--json").stdout)
    slowest = db.execute("select request_id, position, gap_ns from token order by gap_ns desc limit 1").fetchone()
    median = sorted(g for (g,) in db.execute("select gap_ns from token where gap_ns is not null"))
    n = len(median)
    check(f"{name}: the slowest token, by SQL", j["cause"] == cause and (j["request"], j["position"], j["took_ns"]) == slowest and j["as_slow"] >= 1 and j["of"] == n
          and j["typical_ns"] == (median[n // 2] + median[(n - 1) // 2]) / 2 and j["text"] + "\n" == r.stdout, j)
    known = [p["ns"] for p in j["parts"].values() if p["ns"] is not None]
    check(f"{name}: parts add up", abs(sum(known) - j["took_ns"]) < 1000, j["parts"])

make("calm")
r = call("calm.db", "--token", "3:30")
check("nothing unusual is said to be so", "Nothing in it took longer than usual" in r.stdout and "What made" not in r.stdout, r)
r = call("prefill.db", "--token", "4:27")
check("a token by request and position", 'the token at position 27 of request 4 ("\\x1b[31m")' in r.stdout and "\x1b" not in r.stdout and "took as long or longer" in r.stdout, r)
r = call("prefill.db", "--step", "20")
check("a step", "In run 1 (\"made\"), step 20 on replica 0 took 89.0 ms" in r.stdout and "request 9 (700 tokens" in r.stdout and "5 requests" in r.stdout, r)
make("waiting", "waiting")
db = sqlite3.connect(here / "waiting.db")
db.execute("update request_span set from_ns = 500000000 where request_id = 3")
db.execute("insert into request_span values (1, 3, 0, 500000000, 'waiting', 'arrived')")
db.execute("update request set admitted_ns = 500000000 where id = 3")
db.execute("delete from step_request where request_id = 3 and step_id < 18")
db.commit()
r = call("waiting.db", "--request", "3")
check("a request that waited", "is waiting" in r.stdout and "(500 ms, usually" in r.stdout and "request 1 (" in r.stdout and "of 41" not in r.stdout, r)

# ── the heads ────────────────────────────────────────────────────────────────────────────
db = make("heads", "prefill")
db.execute("insert into probe (run_id, id, layers, heads, format, recent_window, first_position, every_n_positions, measure) values (1, 2, '[3,4]', '[0,7]', 'summary', 16, 0, 1, 'weight')")
db.execute("insert into probe (run_id, id, layers, heads, format, first_position, every_n_positions, measure) values (1, 1, '[3]', '[0]', 'full', 0, 1, 'score')")
for position in range(7, 46):
    heads = b""
    for i in range(4):  # the query at 26, which predicted the token at 27, is unlike the others
        odd = position == 26
        heads += struct.pack("<feeeeI", 2.5 if odd else 1.5, 0.125 if odd else 0.75, 0.2, 0.1, 0.5 + i / 16, (0 if i == 3 else 10 + i) if odd else 0)
    db.execute("insert into attention_token values (1, 1, ?, 1, 2, ?, ?)", (position, position + 1, heads))
    db.execute("insert into attention_token values (1, 1, ?, 1, 1, ?, ?)", (position, position + 1, struct.pack("<e", -3.0) * (position + 1)))
db.commit()
r = call("heads.db", "--token", "1:27")
check("what the heads saw", "at position 26, was traced in 4 heads: 0.12 of the weight lay on the first token (0.73 over the request), the entropy was 2.50 nats (1.53)" in r.stdout
      and 'beyond the first token most went from layer 4 head 0 to position 12 (" one") with 0.62, from layer 3 head 7 to position 11' in r.stdout, r)
r = call("heads.db", "--token", "2:27")
check("traced, but not here", "Heads were traced in this run, but not at these positions" in r.stdout, r)
j = json.loads(call("heads.db", "--token", "1:27", "--json").stdout)
check("heads as figures", j["attention"]["heads"] == 4 and j["attention"]["top"][0] == {"layer": 4, "head": 0, "weight": 0.625, "key": 12, "text": " one"}, j)
r = call("heads.db", "--request", "1")
check("a request's heads", "The queries of its answer were traced in 4 heads: 0.73" in r.stdout, r)

# ── what was not recorded ────────────────────────────────────────────────────────────────
make("nohops", "bus", hops=False)
r = call("nohops.db")
check("without hops the forward holds the bus, and that is said", "hold the bus as well; trace = { hops = true }" in r.stdout and "the bus took" not in r.stdout
      and "What the heads saw was not recorded" in r.stdout, r)
make("steps", "schedule", rows="steps")
r = call("steps.db")
check("without tokens the slowest step", "The slowest step of run 1" in r.stdout and "step is 20" not in r.stdout and "is 20: on replica 0" in r.stdout and "is the scheduler" in r.stdout
      and 'rows = "step_requests"' in r.stdout, r)
old = make("old", "prefill")  # of a lathe that knew neither service_event nor probe.measure
for (view,) in old.execute("select name from sqlite_schema where type = 'view'").fetchall():
    old.execute(f"drop view {view}")
old.executescript("drop table service_event; alter table probe drop column measure; pragma user_version = 2")
old.close()
before = (here / "old.db").read_bytes()
r = call("old.db")
check("an older database is read as it is", r.returncode == 0 and "a prefill that joined" in r.stdout and (here / "old.db").read_bytes() == before, r)
make("requests", rows="requests", hops=False)
r = call("requests.db")
check("without steps the slowest request", "The slowest request of run 1" in r.stdout and "Steps were not recorded" in r.stdout and "Of the" not in r.stdout, r)
make("virtual", "prefill", clock="virtual", hops=False)
r = call("virtual.db")
check("the host's time is no part of virtual time", "by the virtual clock" in r.stdout and "scheduling" not in r.stdout and "a prefill that joined" in r.stdout, r)
db = sqlite3.connect(here / "virtual.db")
db.execute("insert into run (id, uid, started_at, state, seed) values (2, 'u2', 2000, 'done', 1)")
db.commit()
for words, status, said in ((("virtual.db",), 1, "run 2"), (("virtual.db", "--run", "3"), 1, "no run 3"), (("virtual.db", "--run", "1", "--token", "1:3"), 1, "begins at 8"),
                            (("virtual.db", "--run", "1", "--request", "77"), 1, "no request 77"), (("virtual.db", "--run", "1", "--step", "99"), 1, "no step 99"),
                            (("requests.db", "--token", "1:9"), 1, "no tokens"), (("requests.db", "--step", "1"), 1, "no steps"), (("nix.db",), 1, "nix.db"), ((), 2, "one database"),
                            (("calm.db", "--token", "1"), 2, "4:37"), (("calm.db", "--token", "1:9", "--step", "2"), 2, "one of"), (("calm.db", "--steps", "2"), 2, "--step"),
                            (("calm.db", "--request", "-1"), 2, "--request -1")):
    r = call(*words)
    check(f"why {' '.join(words)}: one sentence", r.returncode == status and said in r.stderr and r.stderr.count("\n") == 1 and r.stdout == "", r)
r = call("--help")
check("--help", r.returncode == 0 and r.stdout.startswith("usage: lathe why"), r)
sys.exit(1 if failures else 0)
