#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe export`: every row of every table as Python's csv reads it; the same rows are the same bytes."""
import csv
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile

lathe = os.environ["LATHE"]
folder = tempfile.TemporaryDirectory()
here = pathlib.Path(folder.name)
failures = []


def call(*words):
    return subprocess.run([lathe, *words], cwd=here, capture_output=True, text=True, timeout=120)


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-800:]}\n  stderr: {result.stderr[-800:]}")


def one_line(result):
    return result.stderr.count("\n") == 1


def files(name):
    return {path.name: path.read_bytes() for path in sorted((here / name).iterdir())}


(here / "make.lua").write_text("""-- A run to export?
local lathe = require "lathe"
lathe.run { model = lathe.model "tiny", label = 'a "label", of\\ntwo lines', workload = { { prompt = "hello", output_tokens = 5, tenant = " x" },
  { prompt = "a longer one", output_tokens = 3 } }, trace = { attention = "summary", tokens = "all", hops = true }, bus = "sync",
  factors = { rate = 2.5 } }
lathe.run { model = lathe.model "tiny", workload = { { prompt = "hello", output_tokens = 5 } } }
""")
r = call("run", "-q", "--database", "x.db", "make.lua")
check("runs are made", r.returncode == 0, r)
connection = sqlite3.connect(here / "x.db")
connection.execute("insert into metric values (1, 7, 'b', 'late', 1.5), (1, 7, 'a', 'early', 1e300)")
connection.execute("insert into event values (2, 5, '', null, 'an empty level', null)")
connection.commit()
r = call("export", "x.db", "-o", "csv")
tables = [name for (name,) in connection.execute("select name from sqlite_schema where type = 'table' and name not like 'sqlite%'")]
check("every table is a file", r.returncode == 0 and sorted(files("csv")) == sorted(f"{t}.csv" for t in tables), r)


def text(value):
    return "" if value is None else value.hex().upper() if isinstance(value, bytes) else str(value)


alike = True
for table in tables:
    cursor = connection.execute(f"select * from {table}")
    with open(here / f"csv/{table}.csv", newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    names, rows = [column[0] for column in cursor.description], cursor.fetchall()
    numbers = [i for i, row in enumerate(zip(*rows)) if any(isinstance(v, float) for v in row)]
    if table in ("run", "request"):  # a column more than the table: the trace id
        ids = [row.pop() for row in found]
        alike = alike and ids[0] == "trace_id" and len(set(ids)) == len(rows) + 1 and all(len(i) == 32 and int(i, 16) for i in ids[1:])
    same = found[0] == names and len(found) == len(rows) + 1
    expected = sorted([[repr(float(v)) if i in numbers and v is not None else text(v) for i, v in enumerate(row)] for row in rows])
    got = sorted([[repr(float(v)) if i in numbers and v else v for i, v in enumerate(row)] for row in found[1:]])
    if not same or got != expected:
        alike = False
        print(f"  {table}: {got[:2]} is not {expected[:2]}")
check("rows, names and values are those of the database", alike)
check("blobs are hexadecimal", len(files("csv")["attention_token.csv"].splitlines()[1].split(b",")[-1]) > 30)
check("an empty text is not NULL", b'\n2,5,"",,an empty level,\n' in files("csv")["event.csv"])
steps = [tuple(map(int, line.split(b",")[:2])) for line in files("csv")["step.csv"].splitlines()[1:]]
check("sorted by primary key", steps == sorted(steps) and len(steps) > 5)
check("without a key, sorted by every column", files("csv")["metric.csv"].splitlines()[1:] == [b"1,7,a,early,1e+300", b"1,7,b,late,1.5"])

# ── stable: what names a run or tells the host's time differs, and is left out ───────────
connection.close()
shutil.copy(here / "x.db", here / "y.db")
other = sqlite3.connect(here / "y.db")
other.executescript("""update run set uid = 'another' || id, started_at = started_at + 5, machine = '{"cpu": "another"}', commit_id = 'x', dirty = 1, argv = '[]';
    update step set schedule_ns = schedule_ns + 1, reserve_ns = reserve_ns + 2, sample_ns = sample_ns + 3;
    update artifact set uri = '/elsewhere' || uri;
    delete from metric; insert into metric values (1, 7, 'a', 'early', 1e300), (1, 7, 'b', 'late', 1.5);""")
other.commit()
for name in ("x", "y"):
    call("export", f"{name}.db", "-o", f"{name}-stable", "--stable")
    call("export", f"{name}.db", "-o", f"{name}-whole", "--format=csv")
check("--stable: the same bytes", files("x-stable") == files("y-stable"))
check("without it not", files("x-whole") != files("y-whole"))
check("--stable keeps what was decided", files("x-stable")["token.csv"] == files("x-whole")["token.csv"]
      and files("x-stable")["run.csv"].startswith(b"id,label,experiment,") and b",forward_ns," in files("x-stable")["step.csv"])
other.execute("update token set token = token + 1 where run_id = 2 and position = 6")
other.commit()
call("export", "y.db", "-o", "y-stable", "--stable")
check("--stable: another token is another byte", files("x-stable") != files("y-stable"))

(here / "virtual.lua").write_text("""-- Runs by the virtual clock.
local lathe    = require "lathe"
local workload = require "lathe.workload"
local sim = lathe.model { "sim", noise = 0.05 }
lathe.run { model = sim, clock = "virtual", seed = 5, scheduler = "sjf", label = "drawn, classes", workload = workload.poisson {
  rate = 3, requests = 150, seed = 1, predicted = { noise = 0.5 }, classes = {
    { name = "chat", tenant = "a", share = 2, weight = 2, slo = { ttft = 1, tpot = 0.1 },
      prompt = workload.lognormal { median = 100, sigma = 1, max = 800 }, output = workload.lognormal { median = 40, sigma = 0.8, max = 300 } },
    { name = "sum", tenant = "b", priority = 2, deadline_s = 30, prompt = workload.uniform { from = 300, to = 900 }, output = workload.fixed(20) } } } }
lathe.run { model = sim, clock = "virtual", seed = 6, label = "replicas, a fault", workers = { model = 3 }, router = "least_loaded",
  faults = { { at = 5, kind = "dies", replica = 1, lasts = 3 } }, trace = { rows = "requests" }, workload = workload.gamma {
    rate = 9, cv = 3, requests = 150, seed = 2, prompt = workload.fixed(200), output = workload.uniform { from = 5, to = 90 } } }
lathe.run { model = sim, clock = "virtual", label = "closed, thinking", batching = "static", trace = { rows = "step_requests" },
  workload = workload.closed { concurrency = 7, think = 0.4, requests = 60, prompt = workload.uniform { from = 10, to = 500 }, output = workload.fixed(9) } }
""")
for name in ("v1", "v2"):
    r = call("run", "-q", "--database", f"{name}.db", "virtual.lua")
    check(f"{name}.db is made by the virtual clock", r.returncode == 0, r)
    call("export", f"{name}.db", "-o", name, "--stable")
check("two runs by the virtual clock are the same bytes", files("v1") == files("v2") and len(files("v1")["step_request.csv"]) > 10000)

r = call("export", "x.db", "-o", "plain", "--plain")
with open(here / "plain/attention.csv", newline="") as file:
    heads = list(csv.DictReader(file))
tokens = sqlite3.connect(here / "x.db").execute("select count(*) from attention_token").fetchone()[0]
check("--plain: a row a head", r.returncode == 0 and len(heads) == tokens * 4 and float(heads[0]["entropy"]) >= 0, r)

# ── mistakes ─────────────────────────────────────────────────────────────────────────────
other.execute('create table "../outside" (a integer)')
other.execute("pragma user_version = 99")
other.commit()
(here / "none.db").write_bytes(b"")
(here / "text.db").write_text("no database " * 500)
foreign = sqlite3.connect(here / "foreign.db")
foreign.execute("create table t (a)")
foreign.commit()
for words, status, said in ((("nix.db", "-o", "o"), 1, "nix.db"), (("text.db", "-o", "o"), 1, "text.db"), (("none.db", "-o", "o"), 1, "none.db"),
                            (("foreign.db", "-o", "o"), 1, "wasn't made by lathe"), (("y.db", "-o", "o"), 1, "newer lathe"),
                            (("x.db", "-o", "make.lua"), 1, "make.lua"), (("x.db", "-o", "no/such/folder"), 1, "no/such/folder"),
                            (("x.db",), 2, "-o"), ((), 2, "one database"), (("x.db", "-o", "o", "-f", "xml"), 2, "csv"),
                            (("x.db", "-o", "o", "--stabel"), 2, "--stable")):
    r = call("export", *words)
    check(f"export {' '.join(words)}: one sentence", r.returncode == status and said in r.stderr and one_line(r) and r.stdout == "", r)
check("nothing was written for those", not (here / "o").exists())
other.execute("pragma user_version = 4")
other.commit()
r = call("export", "y.db", "-o", "y-odd")
check("a table can't name a file elsewhere", r.returncode == 0 and not (here / "outside.csv").exists()
      and not any("outside" in name for name in files("y-odd")), r)
r = call("export", "--help")
check("--help", r.returncode == 0 and r.stdout.startswith("usage: lathe export"), r)
if os.path.exists("/dev/full"):
    (here / "full").mkdir()
    (here / "full/run.csv").symlink_to("/dev/full")
    r = call("export", "x.db", "-o", "full")
    check("a full disk is one sentence", r.returncode == 1 and "full/run.csv" in r.stderr and one_line(r), r)
sys.exit(1 if failures else 0)
