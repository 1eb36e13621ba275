#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe cite`: each paper once, under who used it; model, data and Lathe itself; what isn't known is said."""
import os
import pathlib
import re
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
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-2500:]}\n  stderr: {result.stderr[-800:]}")


def entries(text):
    """{ key: comment above it }; every brace is closed."""
    found, comment, depth = {}, None, 0
    for line in text.splitlines():
        if depth == 0 and line.startswith("% "):
            comment = line[2:]
        elif depth == 0 and line.startswith("@"):
            key = re.match(r"@\w+\{([^,]+),", line)[1].strip()
            assert key not in found, f"{key} twice"
            found[key], comment = comment, None
        depth += line.count("{") - line.count("}")
        assert depth >= 0
    assert depth == 0
    return found


(here / "make.lua").write_text("""-- What to cite?
local lathe = require "lathe"
local model = lathe.model "tiny"
lathe.run { model = model, sampler = "topp", workload = { { prompt = "hello", output_tokens = 2 } } }
lathe.run { model = model, batching = "static", scheduler = "sjf", workload = { { prompt = "hello", output_tokens = 2 } } }
""")
r = call("run", "-q", "--database", "x.db", "make.lua")
check("runs are made", r.returncode == 0, r)
r = call("cite", "x.db")
found = entries(r.stdout)
check("the papers of the plugins, under who used them", r.returncode == 0 and r.stderr == "" and found.get("kwon2023pagedattention") == "kvcache/paged"
      and found.get("yu2022orca") == "batching/continuous" and found.get("holtzman2020curious") == "sampler/topp", r)
check("Lathe itself", found.get("lathe") == "Lathe itself" and "version = {" in r.stdout, r)
check("what has none is listed", re.search(r"^% Without a citation of their own: .*model/tiny", r.stdout, re.M) is not None
      and "make" not in r.stdout, r)
r = call("cite", "x.db", "2")
check("one run", "yu2022orca" not in entries(r.stdout) and "kwon2023pagedattention" in entries(r.stdout), r)
r = call("cite", "x.db", "1", "2")
check("two runs", set(entries(r.stdout)) == set(found), r)

connection = sqlite3.connect(here / "x.db")
connection.execute("insert into artifact values (1, 'model', 'SmolLM2 135M', null, 'models/x.gguf', 'aa'), (1, 'trace', 'x.csv', null, 'x.csv', "
                   "'439e4138b7e384f316de614c071f7162be05b8af0cef866f82faacd1b0472249'), (2, 'trace', 'y', null, '/d/Azure_LLM_2023_code.csv', 'bb'), "
                   "(2, 'trace', 'unheard.csv', null, 'unheard.csv', 'cc')")
connection.execute("insert into plugin values (2, 'scheduler', 'unheard_of', '1', 2, 'dd', '{}', 5, null)")
connection.execute("update run set commit_id = 'abcdef0123456789' where id = 1")
connection.commit()
r = call("cite", "x.db")
found = entries(r.stdout)
check("a model by its name", found.get("allal2025smollm2") == "model SmolLM2 135M", r)
check("a trace by its sum and by its name, once", found.get("patel2024splitwise") == "trace x.csv, trace y", r)
check("the commit", re.search(r"note = \{Commit .*abcdef012345", r.stdout) is not None, r)
check("a plugin that isn't here is told", "nobody could ask them: scheduler/unheard_of" in r.stdout and "trace unheard.csv" in r.stdout, r)
for words, status, said in (((), 2, "no database"), (("nix.db",), 1, "nix.db"), (("make.lua",), 1, "make.lua"), (("x.db", "9"), 1, "no run 9"),
                            (("x.db", "one"), 1, '"one"'), (("x.db", "--al"), 2, "--al")):
    r = call("cite", *words)
    check(f"cite {' '.join(words)}: one sentence", r.returncode == status and said in r.stderr and r.stderr.count("\n") == 1 and r.stdout == "", r)
r = call("cite", "--help")
check("--help", r.returncode == 0 and r.stdout.startswith("usage: lathe cite"), r)
sys.exit(1 if failures else 0)
