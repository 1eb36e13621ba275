#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""experiments/first_light.lua on the real model: its report, and the rows behind it."""
import os
import pathlib
import re
import sqlite3
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
model = source / "models/smollm2-135m.gguf"
if not model.exists():
    sys.exit(77)
failures = []


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


with tempfile.TemporaryDirectory() as folder:
    words = [lathe, "run", str(source / "experiments/first_light.lua"), "--", "--model", str(model), "--tokens", "6", "--rate", "4"]
    r = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=500)
    print(r.stdout)
    check("it ends well", r.returncode == 0)
    if r.returncode:
        print(r.stderr)
        sys.exit(1)
    check("it reports both batchings", re.search(r"^static ", r.stdout, re.M) and re.search(r"^continuous ", r.stdout, re.M))
    check("it says what it found, with an interval", "95% interval" in r.stdout)
    check("it names a head", re.search(r"layer \d+, head \d+, with [\d.]+% of its weight", r.stdout))
    db = sqlite3.connect(pathlib.Path(folder) / "results/first_light.db")

    def one(query):
        return db.execute(query).fetchone()[0]

    check("two runs, both done", db.execute("select group_concat(state) from run").fetchone() == ("done,done",))
    check("a dozen requests each", one("select count(*) from request") == 24 and one("select count(distinct run_id) from request") == 2)
    check("the same arrivals in both", one("""select count(*) from request a join request b using (id)
          where a.run_id = 1 and b.run_id = 2 and a.planned_ns = b.planned_ns and a.prompt_sha256 = b.prompt_sha256
          and a.output_tokens = b.output_tokens""") == 12)
    check("steps, tokens and who was in them", one("select count(*) from step") > 0 and one("select count(*) from step_request") > 0
          and one("select count(*) from token where kind = 'output'") == one("select sum(output_tokens) from request"))
    check("an attention row for every position that was computed",
          one("select count(*) from attention_token") == one("select sum(prompt_tokens + output_tokens - 1) from request"))
    check("nothing was dropped", one("select sum(dropped_events) from run") == 0)
    check("the model's sum is there", one("select count(*) from artifact where kind = 'model' and length(sha256) = 64") == 2)
    check("a batching is a factor", one("select count(distinct value) from run_factor where name = 'batching'") == 2)
    check("continuous batching computes no padding", one("""select sum(padding_tokens) from step join run on run.id = run_id
          where label = 'continuous'""") == 0)
    db.close()
sys.exit(1 if failures else 0)
