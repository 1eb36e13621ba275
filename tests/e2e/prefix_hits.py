#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Hits of the prefix cache, request by request, are those of a dictionary of all beginnings: with room
for everything, and with room for little, where the leaf that was left longest ago goes. On the real
model, if it is there, answers are the same tokens with the cache and without."""
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile

LATHE, SOURCE = os.environ["LATHE"], os.environ["LATHE_SOURCE"]
MODEL = os.path.join(os.environ.get("LATHE_MODELS", os.path.join(SOURCE, "models")).split(":")[0], "smollm2-135m.gguf")
BLOCK = 16
failures = []

# One after the other: sessions take turns, but no two requests are there at once.
HITS = """
local lathe, workload = require "lathe", require "lathe.workload"
local chats = workload.sessions { rate = 0.01, sessions = 40, turns = workload.uniform { from = 2, to = 6 }, think = 170, seed = 7,
  system = { tokens = 100, groups = 3 }, prompt = workload.lognormal { median = 60, sigma = 0.8 },
  output = workload.uniform { from = 1, to = 80 } }
for _, blocks in ipairs { 100000, 220, 120 } do
  lathe.run { model = lathe.model { "sim", step_us = 10, prefill_us = 0 }, clock = "virtual", kvcache = { "prefix", blocks = blocks, block_tokens = 16 },
              workload = chats, trace = { tokens = "all" }, label = tostring(blocks) }
end
"""

SAME = """
local lathe, workload = require "lathe", require "lathe.workload"
local model = lathe.model { "llama", path = "%s" }
local chats = workload.sessions { rate = 50, sessions = 3, turns = 3, system = { tokens = 48, groups = 2 }, seed = 3,
  prompt = workload.uniform { from = 6, to = 20 }, output = 8 }
local result = {}
for name, kvcache in pairs { paged = "paged", prefix = "prefix", short = { "prefix", blocks = 14 } } do
  local r = lathe.run { model = model, workload = chats, kvcache = kvcache, label = name }
  result[name] = {}
  for i, o in ipairs(r:outputs()) do result[name][i] = o.tokens end
  result[name .. "_cached"] = r:query("select sum(cached_tokens) as n from request where run_id = :run")[1].n
end
print("RESULT " .. lathe.json.encode(result))
"""


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


def run(folder, script):
    path = pathlib.Path(folder) / "script.lua"
    path.write_text(script)
    done = subprocess.run([LATHE, "run", "--quiet", str(path)], cwd=folder, capture_output=True, text=True, timeout=280)
    check("it ends well and says nothing on stderr", done.returncode == 0 and done.stderr == "")
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


class Dictionary:
    """Every beginning that is a number of whole blocks long, by its tokens, with when it was left."""

    def __init__(self, room):
        self.room, self.now, self.left = room, 0, {}

    def serve(self, prompt, answer):
        found = 0
        while found + BLOCK <= len(prompt) - 1 and tuple(prompt[:found + BLOCK]) in self.left:
            found += BLOCK
        held = prompt + answer[:-1]  # the last token came out and was never computed
        mine = [tuple(held[:n]) for n in range(BLOCK, len(held) + 1, BLOCK)]
        blocks = -(-len(held) // BLOCK)
        kept = {n for n in mine[:found // BLOCK]}
        for _ in range(max(0, len(self.left) + blocks - len(kept) - self.room)):
            stems = {n[:-BLOCK] for n in self.left}
            del self.left[min((n for n in self.left if n not in stems and n not in kept), key=self.left.get)]
        for n in reversed(mine):
            self.now += 1
            self.left[n] = self.now
        return found


def hits(folder):
    run(folder, HITS)
    db = sqlite3.connect(pathlib.Path(folder) / "results/script.db")
    total = []
    for run_id, room in db.execute("select id, label from run order by id").fetchall():
        cache, differ, found, prompts = Dictionary(int(room)), 0, 0, 0
        requests = db.execute("select id, cached_tokens, arrival_ns, finish_ns from request where run_id = ? order by id", (run_id,)).fetchall()
        for (_, _, _, finished), (_, _, arrived, _) in zip(requests, requests[1:]):
            if arrived < finished:
                sys.exit("two requests are there at once")
        for request, cached, _, _ in requests:
            text = {kind: [row[0] for row in db.execute("""select token from token where run_id = ? and request_id = ? and kind = ?
                                                           order by position""", (run_id, request, kind))] for kind in ("prompt", "output")}
            expected = cache.serve(text["prompt"], text["output"])
            differ += cached != expected
            found, prompts = found + cached, prompts + len(text["prompt"])
        print(f"  {room} blocks: {len(requests)} requests, {found} of {prompts} prompt tokens found")
        check(f"with {room} blocks each of {len(requests)} requests finds what the dictionary has", differ == 0 and len(requests) > 100)
        total.append(found)
    check("less room finds less", total[0] > total[1] > total[2] > 0)
    db.close()


def same(folder):
    if not os.path.exists(MODEL):
        print("the real model isn't there (sh scripts/fetch_model.sh): that part is left out")
        return
    result = json.loads(run(folder, SAME % MODEL).split("RESULT ", 1)[1])
    check("on the real model paged finds nothing, prefix does", result["paged_cached"] == 0 and result["prefix_cached"] > 50)
    check("the same answers, token for token", result["prefix"] == result["paged"])
    check("in a pool that is short, too", result["short"] == result["paged"] and result["short_cached"] > 0)


for part in hits, same:
    with tempfile.TemporaryDirectory() as folder:
        part(folder)
sys.exit(1 if failures else 0)
