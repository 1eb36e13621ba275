#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe merge`: every row of every run once, renumbered; sources as they were; whole sources or nothing."""
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile

lathe = os.environ["LATHE"]
source = pathlib.Path(os.environ["LATHE_SOURCE"])
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


def ask(database, query, *values):
    connection = sqlite3.connect(here / database)
    try:
        found = connection.execute(query, values).fetchall()
        connection.commit()
        return found
    finally:
        connection.close()


(here / "make.lua").write_text("""-- Runs to merge?
local lathe = require "lathe"
local o = lathe.options { label = { default = "x", help = "" }, runs = { default = 2, help = "" } }
for i = 1, o.runs do
  lathe.run { model = lathe.model "tiny", label = o.label .. i, seed = i,
    workload = { { prompt = "hello", output_tokens = 5 }, "more", { prompt = "given", forced = { 1, 2 } } },
    trace = { attention = "summary", tokens = "all", hops = true, kv = true }, bus = "sync", factors = { rate = i } }
end
""")
for name, runs in (("a", 2), ("b", 3)):
    r = call("run", "-q", "--database", f"{name}.db", "make.lua", "--", "--label", name, "--runs", str(runs))
    check(f"{name}.db is made", r.returncode == 0, r)
ask("b.db", "delete from run where id = 1")  # numbers that begin at 2; foreign keys are off here, so its rows stay
for name in "a", "b":  # what the model at hand has none of
    ask(f"{name}.db", "insert into layer_probe select id, 2, '[0]', '[0]', 'hidden', null, 1, 0, null, 1 from run")
    ask(f"{name}.db", "insert into layer_token select id, 1, 0, 1, 2, x'0000803f' from run")
    ask(f"{name}.db", "insert into intervention select id, 1, 'head_scale', '[0]', '[0]', 0.5, null, 0, null from run")
tables = {name for (name,) in ask("a.db", "select name from sqlite_schema where type = 'table' and name not like 'sqlite%'")}
per_run = sorted(table for table in tables if any(c == "run_id" for (c,) in ask("a.db", "select name from pragma_table_info(?)", table)))
check("most tables have a run_id", len(per_run) >= 15)
check("the tables of memory and layers are among them, with rows", all(t in per_run and ask("a.db", f"select count(*) from {t}")[0][0] >= 2
      for t in ("kv_usage", "layer_probe", "layer_token", "intervention", "score")))


def rows(database, table, run):
    """A run's rows without its number, as a sorted list."""
    columns = [c for (c,) in ask(database, "select name from pragma_table_info(?) order by cid", table) if c != "run_id"]
    return sorted(map(repr, ask(database, f"select {', '.join(columns)} from {table} where run_id = ?", run)))


def same_runs(database, other):
    runs = ask(database, "select id, uid from run")
    for run, uid in runs:
        found = ask(other, "select id from run where uid = ?", uid)
        if len(found) != 1:
            return False
        columns = ", ".join(c for (c,) in ask(database, "select name from pragma_table_info('run')") if c != "id")
        if ask(database, f"select {columns} from run where uid = ?", uid) != ask(other, f"select {columns} from run where uid = ?", uid):
            return False
        for table in per_run:
            if rows(database, table, run) != rows(other, table, found[0][0]):
                print(f"  {table} of run {run} of {database} differs")
                return False
    return len(runs) > 0


before = {name: (here / f"{name}.db").read_bytes() for name in ("a", "b")}
r = call("merge", "a.db", "b.db", "-o", "all.db")
check("two databases become one", r.returncode == 0 and r.stderr == "" and "a.db: 2 runs copied" in r.stdout and "b.db: 2 runs copied" in r.stdout, r)
check("every row of every run is there", same_runs("a.db", "all.db") and same_runs("b.db", "all.db"))
check("nothing else is", all(ask("all.db", f"select count(*) from {t}")[0][0] == ask("a.db", f"select count(*) from {t}")[0][0]
      + ask("b.db", f"select count(*) from {t} where run_id > 1")[0][0] for t in per_run))
check("runs are numbered one after another", ask("all.db", "select id from run order by id") == [(1,), (2,), (3,), (4,)])
check("foreign keys hold", ask("all.db", "pragma foreign_key_check") == [] and ask("all.db", "pragma integrity_check") == [("ok",)])
check("the sources are as they were", all((here / f"{name}.db").read_bytes() == content for name, content in before.items()))
check("nothing is left beside the result", sorted(p.name for p in here.glob("all.db*")) == ["all.db"])
r = call("sql", "all.db", "-f", "csv", "select count(*) from attention")
check("attention can be read", r.stdout.splitlines()[1:] and int(r.stdout.splitlines()[1]) > 0, r)

r = call("merge", "b.db", "a.db", "-o", "all.db")
check("again: every run is there already", r.returncode == 0 and r.stdout.count("0 runs copied") == 2 and "2 there already" in r.stdout
      and ask("all.db", "select count(*) from run") == [(4,)], r)
call("run", "-q", "--database", "a.db", "make.lua", "--", "--label", "new", "--runs", "1")
r = call("merge", "a.db", "-o", "all.db")
check("more runs are added", r.returncode == 0 and "a.db: 1 run copied" in r.stdout and ask("all.db", "select label from run where id = 5") == [("new1",)], r)
r = call("run", "-q", "--database", "all.db", "make.lua", "--", "--runs", "1")
check("the result records runs itself", r.returncode == 0 and ask("all.db", "select max(id) from run") == [(6,)], r)

# ── older, newer, and tables that nobody here knows ──────────────────────────────────────
old = sqlite3.connect(here / "old.db")
old.executescript((source / "schemas/001_tables.sql").read_text() + "pragma user_version = 1;")
old.execute("insert into run (id, uid, started_at, state, seed, label) values (7, 'an old one', 1, 'done', 1, 'old')")
old.execute("""insert into request (run_id, id, priority, replica, planned_ns, arrival_ns, prompt_tokens, cached_tokens, output_tokens, preemptions)
               values (7, 1, 0, 0, 0, 0, 5, 0, 2, 0)""")
old.commit()
content = (here / "old.db").read_bytes()
r = call("merge", "old.db", "-o", "all.db")
check("an older schema is read with defaults", r.returncode == 0 and ask("all.db",
      "select prompt_tokens, predicted_tokens from request where run_id = (select id from run where uid = 'an old one')") == [(5, None)], r)
check("and not changed", (here / "old.db").read_bytes() == content)
shutil.copy(here / "b.db", here / "later.db")
shutil.copy(here / "all.db", here / "later_all.db")
for database in ("later.db", "later_all.db"):
    ask(database, "create table thing (run_id integer not null references run (id), what text) strict")
ask("later.db", "update run set uid = 'later' || id")
ask("later.db", "insert into thing values (2, 'a new kind of row')")
r = call("merge", "later.db", "-o", "later_all.db")
check("a table that is new here is copied for its run_id", ask("later_all.db",
      "select what from thing join run on run.id = run_id where uid = 'later2'") == [("a new kind of row",)], r)

# ── whole or nothing ─────────────────────────────────────────────────────────────────────
shutil.copy(here / "b.db", here / "new.db")
ask("new.db", "update run set uid = 'fresh' || id")
ask("new.db", "pragma user_version = 99")
(here / "text.db").write_text("no database " * 500)
(here / "none.db").write_bytes(b"")
foreign = sqlite3.connect(here / "foreign.db")
foreign.execute("create table run (id integer, uid text, state text)")
foreign.commit()
runs = ask("all.db", "select count(*) from run")
for name, said in (("new", "newer lathe"), ("text", "text.db"), ("none", "none.db"), ("foreign", "wasn't made by lathe"), ("nix", "nix.db")):
    r = call("merge", "a.db", f"{name}.db", "-o", "fresh.db")
    check(f"{name}.db: one sentence, nothing made", r.returncode == 1 and said in r.stderr and one_line(r) and not (here / "fresh.db").exists(), r)
shutil.copy(here / "b.db", here / "damaged.db")
ask("damaged.db", "update run set uid = 'damaged' || id")
ask("damaged.db", "pragma wal_checkpoint(truncate)")
page = ask("damaged.db", "select rootpage from sqlite_schema where name = 'token_text'")[0][0]
size = ask("damaged.db", "pragma page_size")[0][0]
broken = bytearray((here / "damaged.db").read_bytes())
broken[(page - 1) * size:page * size] = b"\xff" * size
(here / "damaged.db").write_bytes(broken)
r = call("merge", "damaged.db", "-o", "all.db")
check("a damaged page is one sentence, and nothing is half merged", r.returncode == 1 and "damaged.db" in r.stderr and one_line(r)
      and ask("all.db", "select count(*) from run") == runs and ask("all.db", "pragma foreign_key_check") == [], r)
shutil.copy(here / "b.db", here / "under.db")
ask("under.db", "update run set uid = 'under' || id, state = case id when 2 then 'running' else state end")
r = call("merge", "under.db", "-o", "all.db")
check("a run under way is left out", r.returncode == 0 and "1 run copied" in r.stdout and "1 under way" in r.stdout, r)
for words, status, said in (((), 2, "no databases"), (("a.db",), 2, "-o"), (("a.db", "-o", "a.db"), 1, "into itself"),
                            (("a.db", "-o", "text.db"), 1, "text.db"), (("a.db", "-o", "foreign.db"), 1, "foreign.db"),
                            (("a.db", "-o", "no/such/x.db"), 1, "no/such"), (("a.db", "--outptu=x"), 2, "--output")):
    r = call("merge", *words)
    check(f"merge {' '.join(words)}: one sentence", r.returncode == status and said in r.stderr and one_line(r), r)
r = call("merge", "--help")
check("--help", r.returncode == 0 and r.stdout.startswith("usage: lathe merge"), r)
sys.exit(1 if failures else 0)
