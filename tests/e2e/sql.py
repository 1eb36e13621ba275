#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe sql`: what it gives is what Python's own SQLite gives; it never writes; the prompt, through a terminal."""
import csv
import fcntl
import io
import json
import os
import pathlib
import pty
import re
import select
import signal
import sqlite3
import struct
import subprocess
import tempfile
import termios
import time

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-sql-"))
database = folder / "x.db"
failures = []


def check(what, condition, detail=""):
    print(f"{'ok    ' if condition else 'FAILED'} {what}", flush=True)
    if not condition:
        failures.append(what)
        print(f"  {detail}")


def run(*words, given="", **more):
    return subprocess.run([lathe, "sql", *map(str, words)], capture_output=True, text=True, timeout=120, input=given, **more)


def told(result):
    return f"status {result.returncode}\n  stdout: {result.stdout[-600:]!r}\n  stderr: {result.stderr[-600:]!r}"


def refuses(what, status, word, *words, **more):
    r = run(*words, **more)
    one_line = r.stderr.count("\n") == 1 and r.stderr.startswith("lathe sql: ")
    check(what, r.returncode == status and word in r.stderr and one_line, told(r))


def make(path, wal=False):
    db = sqlite3.connect(path, isolation_level=None)
    if wal:
        db.execute("pragma journal_mode = wal")
    schemas = sorted((source / "schemas").glob("[0-9]*.sql"))
    for file in schemas:
        db.executescript(file.read_text(encoding="utf-8"))
    db.execute(f"pragma user_version = {len(schemas)}")
    db.execute("insert into run(id, uid, label, started_at, state, seed) values (1, 'u', 'first', 0, 'done', 7)")
    for i in range(1, 41):
        db.execute("insert into request(run_id, id, priority, replica, planned_ns, arrival_ns, admitted_ns, first_token_ns,"
                   " finish_ns, finish_reason, prompt_tokens, cached_tokens, output_tokens, preemptions, tenant)"
                   " values (1, ?, 0, 0, ?, ?, ?, ?, ?, 'stop', 10, 0, 3, 0, ?)",
                   (i, i * 1000, i * 1000, i * 1000 + 77, i * 1000 + 12345678 * i, i * 1000 + 99999999 * i, "a,b" if i % 2 else None))
    db.execute("create table odd(i integer, r real, t text, b blob)")
    db.executemany("insert into odd values (?, ?, ?, ?)",
                   [(2**53 + 1, 0.1 + 0.2, 'say "hi", é\nand 日本', b"abc"), (None, None, None, None), (-1, 1e-300, "", b"")])
    return db


# ---- results ----

mine = make(database)
queries = ["select * from request_latency", "select * from run_latency", "select * from where_did_the_time_go",
           "select i, r, t from odd", "select 1 where 0", "with recursive c(x) as (select 1 union all select x + 1 from c limit 5000)"
           " select x, x / 7.0 as y, 'n' || x as z from c", "explain query plan select * from run", "values (1, 'two')"]
for query in queries:
    cursor = mine.execute(query)
    names, rows = [d[0] for d in cursor.description], cursor.fetchall()
    r = run(database, query, "--format", "json")
    check(f"json gives the rows: {query[:50]}", r.returncode == 0 and json.loads(r.stdout) == [dict(zip(names, row)) for row in rows],
          told(r))
    r = run(database, query, "--format", "csv")
    read = list(csv.reader(io.StringIO(r.stdout)))
    wanted = [names] + [["" if v is None else repr(v) if isinstance(v, float) else str(v) for v in row] for row in rows]
    close = [[float(a) if re.fullmatch(r"-?[\d.]+(e-?\d+)?", a) else a for a in line] for line in read] == \
            [[float(a) if re.fullmatch(r"-?[\d.]+(e-?\d+)?", a) else a for a in line] for line in wanted]
    check("csv gives them too", r.returncode == 0 and close, told(r))

r = run(database, "select percentile(ttft_ms, 50) as p, median(ttft_ms) as m from request_latency", "-f", "json")
check("the extension's functions are there", r.returncode == 0 and json.loads(r.stdout)[0]["p"] == json.loads(r.stdout)[0]["m"], told(r))
r = run(database, "select count(*) as n from attention", "-f", "json")
check("the extension's tables are there", r.returncode == 0 and json.loads(r.stdout) == [{"n": 0}], told(r))
views = [name for name, in mine.execute("select name from sqlite_schema where type = 'view'")]
for view in views:
    r = run(database, f"select * from {view} limit 3")
    check(f"view {view} can be read", r.returncode == 0 and r.stderr == "", told(r))
r = run(database, "select 1 as a; -- twice\nselect 2 as b;")
check("several statements, results apart", r.stdout == "a\n-\n1\n\nb\n-\n2\n", told(r))
r = run(database, given="select count(*) as n\nfrom request;")
check("a script on stdin", r.stdout == " n\n--\n40\n", told(r))
check("- reads stdin", run(database, "-", given="select 1 a").stdout == "a\n-\n1\n")
check("an empty script gives nothing", run(database, given=" ;; -- nothing\n").stdout == "")
check("--help", run("--help").returncode == 0 and "usage: lathe sql" in run("--help").stdout)

# ---- what is wrong ----

before = database.read_bytes()
for statement in ("delete from run", "update run set label = 'x'", "insert into odd values (1, 2, 3, 4)", "create table a(b)", "drop view token_gap",
                  "create temp table a(b)", f"vacuum into '{folder}/copy.db'", "select 1; drop table run", "pragma user_version = 9",
                  "replace into odd values (1, 2, 3, 4)", "pragma query_only = 0; delete from run"):
    r = run(database, statement)
    harmless = statement.startswith("pragma user_version") or r.returncode == 1 and "only" in r.stderr
    check(f"writes nothing: {statement[:40]}", harmless and database.read_bytes() == before, told(r))
check("no file is made", not (folder / "copy.db").exists())
refuses("a syntax error, with its place", 1, "line 2, column 8", database, "select 1;\nselect from run")
refuses("an unknown column", 1, "no such column: foo (line 1, column 8)", database, "select foo from run")
refuses("place counts characters", 1, "column 13", database, "select 'é', foo from run")
refuses("double quotes are names", 1, "no such column", database, 'select "done" from odd')
refuses("a failure while it runs", 1, "integer overflow", database, "select abs(-9223372036854775808)")
refuses("parameters", 1, "parameter, :id", database, "select * from run where id = :id")
refuses("an unknown format", 2, "perhaps json", database, "select 1", "--format", "jsn")
refuses("no database", 2, "no database")
refuses("too many words", 2, "left over", database, "select", "1")
refuses("an unknown option", 2, "perhaps --format", database, "--formt=csv")
refuses("zero bytes in a script", 1, "isn't text", database, given="select\0 1")
refuses("a missing file", 1, "lathe run EXPERIMENT", folder / "none.db", "select 1")
check("and doesn't make it", not (folder / "none.db").exists())
refuses("a folder", 1, "is a folder", folder, "select 1")
(folder / "text.db").write_text("hello " * 1000)
refuses("not a database", 1, "not an SQLite database", folder / "text.db", "select 1")
(folder / "empty.db").write_bytes(b"")
refuses("an empty file", 1, "is empty", folder / "empty.db", "select 1")
(folder / "cut.db").write_bytes(before[:len(before) // 2])
r = run(folder / "cut.db", "select * from request; select * from odd")
check("a damaged file is a sentence", r.returncode == 1 and r.stderr.startswith("lathe sql: ") and "Traceback" not in r.stderr, told(r))

newer = folder / "newer ?#%.db"
make(newer).execute("pragma user_version = 99").close()
r = run(newer, "select count(*) as n from request")
check("a newer schema is a warning", r.returncode == 0 and "newer lathe (schema 99" in r.stderr and "40" in r.stdout, told(r))
foreign = sqlite3.connect(folder / "foreign.db")
foreign.executescript("create table t(a); insert into t values (5)")
foreign.close()
r = run("foreign.db", "select a from t", cwd=folder)
check("another program's is a warning", r.returncode == 0 and "wasn't made by lathe" in r.stderr and "5" in r.stdout, told(r))
os.rename(folder / "foreign.db", folder / "file:foreign.db?mode=memory")
r = run("file:foreign.db?mode=memory", "select a from t", cwd=folder)
check("a name that looks like a URI is a name", r.returncode == 0 and "5" in r.stdout, told(r))
with open("/dev/full", "w", encoding="utf-8") as full:
    r = subprocess.run([lathe, "sql", database, "select * from request"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
check("a full disk is a sentence", r.returncode == 1 and r.stderr.count("\n") == 1 and "No space left" in r.stderr, r.stderr)
endless = "with recursive c(x) as (select 1 union all select x + 1 from c) select x from c"
with subprocess.Popen([lathe, "sql", database, endless, "-f", "csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
    p.stdout.readline()
    p.stdout.close()
    check("a closed pipe ends it, without a word", p.wait(timeout=60) != 0 and p.stderr.read() == b"")

# ---- while a run goes on, and where nothing can be written ----

wal = folder / "wal.db"
writer = make(wal, wal=True)
writer.execute("begin immediate")
writer.execute("delete from request")
r = run(wal, "select count(*) as n from request", "-f", "csv")
check("read while somebody writes", r.stdout == "n\n40\n", told(r))
writer.execute("rollback")

locked = folder / "locked"
locked.mkdir()
(locked / "x.db").write_bytes(b"")
make(locked / "x.db", wal=True).close()
os.chmod(locked / "x.db", 0o444)
os.chmod(locked, 0o555)
os.chmod(folder, 0o755)
nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
if nobody and subprocess.run(["test", "-x", lathe], check=False, **nobody).returncode != 0:
    print("skip   a folder that can't be written: the program is out of reach for user 65534")
else:
    r = run(locked / "x.db", "select count(*) as n from request", "-f", "csv", **nobody)
    check("a WAL database in a folder that can't be written", r.returncode == 0 and r.stdout == "n\n40\n" and r.stderr == "", told(r))
    check("and leaves no files there", sorted(os.listdir(locked)) == ["x.db"], os.listdir(locked))
os.chmod(locked, 0o755)

# ---- the prompt ----


class Prompt:
    """`lathe sql` in a terminal of 120 columns."""

    def __init__(self, path, state):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(XDG_STATE_HOME=str(state), TERM="xterm", LANG="C.UTF-8")
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
            os.execv(lathe, [lathe, "sql", str(path)])
        self.greeting = self.until("lathe> ")

    def until(self, end, seconds=30.0):
        seen, stop = "", time.monotonic() + seconds
        while not re.search(re.escape(end) + "$", seen) and time.monotonic() < stop:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    got = os.read(self.fd, 65536)
                except OSError:
                    break
                if not got:
                    break
                seen = (seen + got.decode("utf-8", "replace")).replace("\r\n", "\n")
        time.sleep(0.05)  # the prompt is there before the terminal takes single keys
        return seen

    def say(self, text, end="lathe> "):
        os.write(self.fd, text.encode())
        return self.until(end)

    def close(self, text=".quit\n"):
        for _ in range(10):  # typed again: the terminal may drop what comes while its mode is changed
            try:
                os.write(self.fd, text.encode())
            except OSError:
                pass
            self.until("\0", 3)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self.fd)
                return status
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.fd)
        return -1


state = folder / "state"
p = Prompt(database, state)
check("the prompt lists every view", all(view in p.greeting for view in views), p.greeting)
check("with what its comment says", "slowest_step" in p.greeting and "what took its time, and who was in it" in p.greeting, p.greeting)
seen = p.say("select 40 +\n", "...> ")
check("a statement goes on", seen.endswith("   ...> "), seen)
seen = p.say("2 as 'é';\n")
check("until its ;", "\n é\n--\n42\n1 row" in seen, seen)
seen = p.say("select run_id from which_head_lo\t limit 1;\n")
check("tab completes a view", "0 rows" in seen and "no such" not in seen, seen)
seen = p.say("SELE\t tena\t, count(*) FROM requ\x7f\x7f\x7f\x7frequest where tena\t = 'a,b' group by 1;\n")
check("and keywords and columns", "tenant  count(*)" in seen and "a,b           20" in seen, seen)
seen = p.say("select * from attention_\t\t", "lathe> select * from attention_")
check("several are listed", "attention_head" in seen and "attention_token" in seen and "attention_weights" in seen, seen)
seen = p.say("\x03")
check("Ctrl-C throws the line away", "^C\nlathe> " in seen, seen)
p.say("select 'left\n", "...> ")
seen = p.say("\x03")
check("and the lines before it", seen.endswith("\nlathe> "), seen)
seen = p.say("select 'whole' as w;\n")
check("so that the next is whole", "\nwhole\n" in seen, seen)
seen = p.say("\x1b[A\x1b[A\n")
check("the history goes back", "tenant  count(*)" in seen, seen)
p.say(endless.replace("select x from c", "select max(x) from c") + ";\n", "from c;\n")
time.sleep(0.5)
seen = p.say("\x03")
check("Ctrl-C ends a query", "interrupted" in seen, seen)
seen = p.say("select 1 + 1 as two;\n")
check("and the prompt lives on", "\n  2\n" in seen, seen)
seen = p.say(endless + ";\n")
check("a huge result is cut", "\n1000\nthe first 1000 rows" in seen and "\n1001\n" not in seen, seen[-300:])
p.say(".limit 5\n")
seen = p.say(endless + ";\n")
check(".limit", "\n5\nthe first 5 rows" in seen, seen)
seen = p.say("select *\n", "...> ") + p.say("from requst;\n")
check("an error is pointed at", "no such table: requst\n" in seen, seen)
seen = p.say("select é, nope from run;\n")
check("below its place", "\n  select é, nope from run;\n         ^\n" in seen, seen)
seen = p.say("drop table run;\n")
check("writes are refused", "open for reading only" in seen, seen)
seen = p.say(".views\n")
check(".views", all(re.search(rf"^{view} +\S", seen, re.M) for view in views), seen)
seen = p.say(".tables\n")
check(".tables", re.search(r"^step_request +One row per request in a step\.$", seen, re.M) is not None and "attention_weights" in seen, seen)
seen = p.say(".schema slowest_step\n")
check(".schema", "CREATE VIEW slowest_step AS\n-- One row per step, the slowest first" in seen, seen)
seen = p.say(".schema attention\n")
check(".schema of the extension's", "entropy" in seen, seen)
seen = p.say(".schema slowst_step\n")
check("perhaps another", "perhaps slowest_step" in seen, seen)
p.say(".mo\tjs\t\n")
seen = p.say("select 'x' as y;\n")
check(".mode, completed", '[{"y":"x"}]' in seen, seen)
check(".help", ".schema [NAME]" in p.say(".help\n"))
check("an unknown command", "perhaps .views" in p.say(".viws\n"))
p.say("select 'two\\' as a -- why\n", "...> ")
p.say(", 'lines' as b;\n")
check(".quit ends it", p.close() == 0)

p = Prompt(database, state)
p.say(".mode csv\n")
p.say("select 'between';\n")
seen = p.say("\x1b[A\x1b[A\x1b[A\x1b[A\n")
check("the history is kept, a statement of two lines with a comment as it was", "\ntwo\\,lines\n" in seen, seen)
check("Ctrl-D ends it", p.close("\x04") == 0)
history = state / "lathe" / "history"
check("only its owner reads the history", history.stat().st_mode & 0o777 == 0o600 and history.parent.stat().st_mode & 0o077 == 0)
history.write_text("".join(f"select {i};\n" for i in range(4000)), encoding="utf-8")
p = Prompt(database, state)
seen = p.say("\x1b[A\n")
check("a long history is shortened to its end", "3999" in seen and len(history.read_text().splitlines()) <= 1001, seen)
os.kill(p.pid, signal.SIGTERM)
os.waitpid(p.pid, 0)
(folder / "file").write_text("")
p = Prompt(database, folder / "file")
seen = p.say("select 5 as five;\n")
check("no place for a history is no harm", "\n   5\n" in seen and p.close() == 0, seen)
check("the database is as it was", database.read_bytes() == before)

if failures:
    raise SystemExit(f"{len(failures)} failed: {'; '.join(failures)}")
for path in sorted(folder.rglob("*"), reverse=True):
    path.rmdir() if path.is_dir() else path.unlink()
folder.rmdir()
