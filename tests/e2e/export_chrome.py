#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe export --format chrome`: the Trace Event Format as its document has it, slices that nest, counts that are SQL's; and
the same counts from Perfetto's own trace processor, if it can be had."""
import collections
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile

source = pathlib.Path(os.environ["LATHE_SOURCE"])
if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):  # Debian's packages are for Debian's Python
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])
sys.path[0:1] = [str(source / "build/python"), str(source / "tests/support")]
import trace_processor  # noqa: E402

lathe = os.environ["LATHE"]
folder = tempfile.TemporaryDirectory()
here = pathlib.Path(folder.name)
failures = []


def call(*words):
    return subprocess.run([lathe, *words], cwd=here, capture_output=True, text=True, timeout=120)


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}", flush=True)
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-800:]}\n  stderr: {result.stderr[-800:]}" if hasattr(result, "returncode") else f"  {result}")


r = call("run", "-q", "--database", "x.db", str(source / "tests/support/export_runs.lua"))
check("runs are made", r.returncode == 0, r)
db = sqlite3.connect(here / "x.db")
# rows that contradict each other, as an imported file may have them
db.executescript("""insert into step select run_id, 9001, 7, start_ns, end_ns, 5e12, 0, 5e12, 5e12, 1, 0, 1, 0, 1, 0, 0, 1, 9 from step where run_id = 1 and id = 3;
    insert into step select run_id, 9002, 7, start_ns + 1, end_ns + 1000, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 9 from step where run_id = 1 and id = 3;
    insert into step_request values (1, 9001, 1, 'decode', 500, 1, 1, 1), (1, 9002, 1, 'prefill', 500, 3, 1, 1);
    insert into hop values (1, 9001, null, 3, 0, 'model.forward', 500, 100, 300, 1, 0, 1), (1, 9002, null, 3, 0, 'model.forward', 550, 600, 700, 1, -5, 1), (1, 9003, null, 3, 0, 'model.forward', 500, 520, 700, 1, 0, 2);""")
db.commit()


def one(query):
    return db.execute(query).fetchone()[0]


r = call("export", "x.db", "--format", "chrome", "-o", "x.json")
check("exports", r.returncode == 0 and r.stderr == "" and "3 runs" in r.stdout, r)
trace = json.loads((here / "x.json").read_text())
events = trace["traceEvents"]

# ── the document: keys and types of each phase, and B and E as brackets in order of time ─
open_slices, counted, wrong = collections.defaultdict(list), collections.Counter(), []
last, flows, depth = {}, {}, collections.defaultdict(set)
for e in events:
    track = e["pid"], e["tid"]
    counted[e["ph"]] += 1
    if not all(isinstance(v, int) and v >= 0 for v in track) or not isinstance(e["ts"], (int, float)) or not isinstance(e.get("args", {}), dict):
        wrong.append(e)
    if e["ph"] in "BE":
        if e["ts"] < last.get(track, 0):
            wrong.append(("goes back", e))
        last[track] = e["ts"]
    if e["ph"] == "B":
        counted[e["cat"]] += 1
        depth[e["cat"]].add(len(open_slices[track]))
        open_slices[track].append(e)
    elif e["ph"] == "E":
        if not open_slices[track] or open_slices[track].pop()["ts"] > e["ts"]:
            wrong.append(("ends what had not begun", e))
    elif e["ph"] in "sf":
        key = e["cat"], e["name"], e["id"]
        if not open_slices[track] or (e["ph"] == "f") != (key in flows) or (e["ph"] == "f" and (flows[key] > e["ts"] or e.get("bp") != "e")):
            wrong.append(("an arrow from nothing or to nothing", e))
        flows[key] = e["ts"]
    elif e["ph"] == "C":
        if not e["args"] or not all(isinstance(v, (int, float)) for v in e["args"].values()):
            wrong.append(e)
    elif e["ph"] == "M":
        if e["name"] not in ("process_name", "thread_name") or not isinstance(e["args"]["name"], str):
            wrong.append(e)
    elif e["ph"] != "i" or e.get("s") != "p":
        wrong.append(e)
check("each event is what the format's document says", not wrong, wrong[:3])
check("every slice is closed", not any(open_slices.values()))
check("slices lie where they belong", (depth["request"], depth["phase"], depth["step_request"], depth["step"], depth["component"], depth["hop"], depth["hop_part"])
      == ({0}, {1}, {2}, {0}, {1}, {0}, {1}), dict(depth))
whole = "select count(*) from "
sql = {"request": one(whole + "request"), "step": one(whole + "step"), "hop": one(whole + "hop"), "step_request": one(whole + "step_request")}
check("slices are counted by SQL", all(counted[name] == n for name, n in sql.items()), (sql, counted))
check("an arrow for each request in a step", counted["s"] == counted["f"] == sql["step_request"], counted)
check("two counters a step", counted["C"] == 2 * sql["step"])
phases = collections.Counter(e["name"] for e in events if e.get("cat") == "phase")
spans = dict(db.execute("select state, count(*) from request_span where to_ns > from_ns group by state"))
check("preemption is a phase", phases["preempted"] == spans.get("preempted", 0) > 0, (phases, spans))
check("prefill again after it", phases["prefill"] > sql["request"], phases)
threads = [e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"]
check("calls at once lie on threads of their own", "model.forward (2)" in threads and "replica 7 (2)" in threads, threads)
names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
check("processes are named", len(names) == 9 and 'run 1 (a "label", of\ntwo lines): steps' in names.values(), names)
first = next(e for e in events if e.get("cat") == "request")
took = db.execute("select planned_ns, finish_ns, correlation_id from request where run_id = 1 and id = 1").fetchone()
check("microseconds with all of the nanoseconds", first["ts"] == took[0] / 1000 and first["args"]["tenant"] == "</x>")
named = [e["args"]["trace_id"] for e in events if e.get("cat") == "request"]
check("trace ids are W3C's", len(set(named)) == len(named) and all(len(t) == 32 and int(t, 16) for t in named))
check("a traceparent goes on", named[1] == "4bf92f3577b34da6a3ce929d0e0e4736")
component = collections.Counter(e["name"] for e in events if e.get("cat") == "component" and e["pid"] == 21)
check("the host's time is no part of a virtual step", set(component) == {"forward"}, component)
requests_only = collections.Counter(e["name"] for e in events if e.get("cat") == "phase" and e["pid"] == 32)
check("without steps a request still has its phases", requests_only["prefill"] == 20 and requests_only["decode"] > 10, requests_only)

r = call("export", "x.db", "-f", "chrome", "-o", "one.json", "--run", "2")
alone = json.loads((here / "one.json").read_text())
check("--run", r.returncode == 0 and sum(e.get("cat") == "request" for e in alone["traceEvents"]) == 60 and list(alone["otherData"]) == ["producer", "run 2"], r)
again = call("export", "x.db", "-f", "chrome", "-o", "again.json")
check("the same rows are the same bytes", again.returncode == 0 and (here / "again.json").read_bytes() == (here / "x.json").read_bytes())

# ── mistakes ─────────────────────────────────────────────────────────────────────────────
for words, status, said in ((("x.db", "-f", "chrome"), 2, "-o"), (("x.db", "-f", "chrome", "-o", "y", "--run", "9"), 1, "its last is 3"),
                            (("x.db", "-f", "chrome", "-o", "y", "--run", "x"), 2, "--run x"), (("x.db", "-f", "chrome", "-o", "y", "--stable"), 2, "csv"),
                            (("x.db", "-f", "chrome", "-o", "x.db"), 1, "the database itself"), (("x.db", "-f", "chrome", "-o", "no/y"), 1, "no/y"),
                            (("x.db", "-f", "chrome", "-o", "y", "--push", "http://localhost"), 2, "otlp"), (("x.db", "-f", "json", "-o", "y"), 2, "chrome"),
                            (("nix.db", "-f", "chrome", "-o", "y"), 1, "nix.db"), (("x.db", "-o", "y", "--run", "1"), 2, "chrome and otlp")):
    r = call("export", *words)
    check(f"export {' '.join(words)}: one sentence", r.returncode == status and said in r.stderr and r.stderr.count("\n") == 1 and not (here / "y").exists(), r)
if os.path.exists("/dev/full"):
    r = call("export", "x.db", "-f", "chrome", "-o", "/dev/full")
    check("a full disk is one sentence", r.returncode == 1 and "/dev/full" in r.stderr and r.stderr.count("\n") == 1, r)

# ── Perfetto ─────────────────────────────────────────────────────────────────────────────
try:
    processor = trace_processor.load(here / "x.json")
except trace_processor.Missing as e:
    print(f"not asked: Perfetto's trace processor; absent: {e}")
    sys.exit(1 if failures else 0)
slices = dict(processor.query("select category, count(*) as n from slice where category <> 'event' group by 1"))
check("Perfetto counts the same slices", all(slices[name] == n for name, n in sql.items()) and slices["phase"] == counted["phase"], (slices, sql))
check("Perfetto draws every arrow", processor.query("select count(*) as n from flow")[0][0] == sql["step_request"])
pairs = processor.query("""select count(*) as n from flow join slice a on a.id = flow.slice_out join slice b on b.id = flow.slice_in
    where a.category = 'step' and b.category = 'step_request'""")
check("from a step to its part in a request", pairs[0][0] == sql["step_request"], pairs)
check("Perfetto finds nothing wrong", processor.query("select name, value from stats where severity in ('error', 'data_loss') and value > 0") == [],
      processor.query("select name, value from stats where severity in ('error', 'data_loss') and value > 0"))
inside = processor.query("""select count(*) as n from slice c join slice p on p.id = c.parent_id where c.ts < p.ts or c.ts + c.dur > p.ts + p.dur""")
check("what nests lies inside, to the nanosecond", inside[0][0] == 0, inside)
longest = processor.query("select s.dur, s.name from slice s join thread_track t on s.track_id = t.id join thread using (utid) join process using (upid) "
                          "where s.category = 'request' and process.name like 'run 2%' order by s.dur desc limit 1")[0]
expected = db.execute("select finish_ns - planned_ns, 'request ' || id from request where run_id = 2 order by 1 desc limit 1").fetchone()
check("the longest request is SQL's", abs(longest[0] - expected[0]) <= 1 and longest[1] == expected[1], (longest, expected))
used = processor.query("select max(value) as v from counter join process_counter_track t on t.id = track_id where t.name like 'KV blocks, replica 1%'")
check("the pool's counter is SQL's", used[0][0] == one("select max(kv_blocks_used) from step where replica = 1 and run_id = 2"), used)
processor.close()
sys.exit(1 if failures else 0)
