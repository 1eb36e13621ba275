#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every query that README.md shows, asked of a fresh small run in the plain sqlite3 shell with the extension loaded: each must
give rows."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

lathe, source, build = (os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"]), pathlib.Path(os.environ["LATHE_BUILD"]))
shell, extension = shutil.which("sqlite3"), build / "lathe_sqlite.so"
if not shell or not extension.exists() or any(s in extension.read_bytes() for s in (b"__asan_init", b"__tsan_init")):
    print("skip: no sqlite3 shell, or the extension is a sanitizer's, which the shell can't load")
    sys.exit(77)
failures = []

# Tokens that come again after 40, so that there is a previous occurrence, and two runs, the second of which evicts.
SCRIPT = """
local lathe = require "lathe"
local model = lathe.model "tiny"
local again, forced = {}, {}
for i = 1, 40 do again[i] = 60 + i * 7 % 41; again[i + 40] = again[i] end
for i = 1, 12 do forced[i] = again[(i - 1) % 40 + 1] end
local probes = { { format = "full" }, { format = "top", top_k = 33 } }
do
  local e <close> = lathe.engine { model = model, trace = false }
  local info = e:call("model", "describe")
  for _, format in ipairs { "scores", "norms", "lens", "hidden" } do
    if info["probe_" .. format] then probes[#probes + 1] = { format = format } end
  end
end
for _, run in ipairs { { "static", "paged" }, { "continuous", { "sinks", sinks = 4, budget = 32 } } } do
  lathe.run { model = model, batching = run[1], kvcache = run[2], bus = "sync", seed = 1, label = run[1], factors = { batching = run[1] },
              workload = { { tokens = again, forced = forced }, { at = 0.01, prompt = "hello there", forced = forced, tenant = "a" } },
              trace = { attention = "summary", tokens = "all", hops = true, kv = 1, probes = probes } }
end
"""


def check(what, condition, detail=""):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        print(f"  {detail}")


def statements(text):
    """Split at semicolons that end a line's statement; comments stay with what follows them."""
    found, rest = [], ""
    for line in text.splitlines(keepends=True):
        rest += line
        if re.search(r";\s*(--.*)?$", line):
            found.append(rest.strip())
            rest = ""
    return found + ([rest.strip()] if re.sub(r"--.*", "", rest).strip() else [])


def queries(readme):
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", readme, re.M | re.S)
    for language, text in blocks:
        if language == "sql":
            yield from statements(text)
        elif language == "sh":
            yield from re.findall(r'lathe sql \S+ "([^"]+)"', text)
        elif language == "lua":
            yield from re.findall(r'query\s*\(?\s*"(select [^"]+)"', text)


readme = (source / "README.md").read_text(encoding="utf-8")
with tempfile.TemporaryDirectory() as folder:
    script = pathlib.Path(folder) / "small.lua"
    script.write_text(SCRIPT, encoding="utf-8")
    made = subprocess.run([lathe, "run", "--quiet", str(script)], cwd=folder, capture_output=True, text=True, timeout=120)
    check("a small run", made.returncode == 0 and made.stderr == "", made.stderr)
    database = pathlib.Path(folder) / "results/small.db"
    asked = list(queries(readme))
    check("the README shows queries", len(asked) >= 6, asked)
    for query in asked:
        query = query.replace(":run", "2")
        r = subprocess.run([shell, "-bail", "-batch", str(database)], input=f".load {extension}\n{query.rstrip(';')}\n;\n",
                           capture_output=True, text=True, timeout=120)
        check(re.sub(r"\s+", " ", re.sub(r"--.*", "", query)).strip()[:90], r.returncode == 0 and r.stderr == "" and r.stdout.strip() != "",
              f"{r.stdout[-300:]}{r.stderr[-300:]}")
    # The views, which the README names: those that this run has rows for give some.
    views = subprocess.run([shell, str(database), "select name from sqlite_schema where type = 'view'"], capture_output=True, text=True).stdout.split()
    empty = {"how_long_was_a_worker_gone", "sweep_point", "how_far_is_a_sweep"}
    for view in views:
        r = subprocess.run([shell, "-bail", "-batch", str(database)], input=f".load {extension}\nselect * from {view} limit 1;\n",
                           capture_output=True, text=True, timeout=120)
        check(f"view {view} in the shell", r.returncode == 0 and r.stderr == "" and (r.stdout.strip() != "" or view in empty), r.stdout + r.stderr)
if failures:
    raise SystemExit(f"{len(failures)} failed: {'; '.join(failures)}")
