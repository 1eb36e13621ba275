#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe logits` and `lathe eval`: the golden numbers through the command line, windows, and bad usage; and what
the engine says of the same tokens, given one by one."""
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
failures = []
TINY = ("--set", "model=tiny")
FLOAT32 = ("--set", "model=llama:compute=blas")  # as the golden data


def run(*words, text=None):
    return subprocess.run([lathe, *words], capture_output=True, timeout=300, input=(text or "").encode())


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-500:]}\n  stderr: {result.stderr[-500:]}")


def refused(what, status, words, *arguments, text=None):
    r = run(*arguments, text=text)
    check(what, r.returncode == status and words.encode() in r.stderr and r.stderr.count(b"\n") == 1 and r.stdout == b"", r)


for verb in ("logits", "eval"):
    r = run(verb, "--help")
    check(f"{verb} --help", r.returncode == 0 and f"usage: lathe {verb}".encode() in r.stdout, r)
    refused(f"{verb} without a model", 2, "-m", verb, "--ids", "1,2")
    refused(f"{verb} without a prompt", 2, "--ids", verb, *TINY)
    refused(f"{verb} with two prompts", 2, "--ids", verb, *TINY, "--ids", "1,2", "x")
    refused(f"{verb} with an unknown option", 2, "--json", verb, *TINY, "--ids", "1,2", "--jsno")
    refused(f"{verb} with a word for an id", 1, "x", verb, *TINY, "--ids", "1,x")
    refused(f"{verb} with an id beyond the vocabulary", 1, "260", verb, *TINY, "--ids", "1,260")
    refused(f"{verb} with an empty list", 1, "empty", verb, *TINY, "--ids", "-", text="[]")
    refused(f"{verb} with an unknown model option", 1, "seed", verb, "--set", "model=tiny:seeed=3", "--ids", "1,2")
    refused(f"{verb} with another stage", 2, "scheduler", verb, *TINY, "--set", "scheduler=fcfs", "--ids", "1,2")
    refused(f"{verb} with a model that isn't there", 1, "no-such-model", verb, "-m", "no-such-model", "--ids", "1,2")
    refused(f"{verb} with a file that is no model", 1, "GGUF", verb, "-m", str(source / "LICENSE"), "--ids", "1,2")
refused("logits --top 0", 2, "--top 0", "logits", *TINY, "--ids", "1", "--top", "0")
refused("logits beyond the context", 1, "16", "logits", "--set", "model=tiny:context=16", "--ids", ",".join(["1"] * 17))
refused("eval of one token", 1, "at least 2", "eval", *TINY, "--ids", "1")
refused("eval with a stride over the context", 2, "--stride", "eval", *TINY, "--ids", "1,2", "--context", "10", "--stride", "10")
refused("eval beyond the context", 1, "2048", "eval", *TINY, "--ids", "1,2", "--context", "4096")
refused("eval of a missing file", 1, "no/such/file", "eval", *TINY, "no/such/file")

r = run("logits", *TINY, "--ids", "[1, 2, 3]", "--top", "260", "--json")
rows = json.loads(r.stdout)
check("probabilities of the whole vocabulary sum to 1", abs(sum(math.exp(x["logprob"]) for x in rows) - 1) < 1e-6, r)
check("best first", all(a["logprob"] >= b["logprob"] for a, b in zip(rows, rows[1:])), r)
r = run("logits", *TINY, "--top", "3", "--json", "abc")
ids = run("logits", *TINY, "--ids", "-", "--top", "3", "--json", text="97,98,99")
check("text and ids give the same", r.stdout == ids.stdout and r.returncode == 0, r)

with tempfile.NamedTemporaryFile() as file:
    file.write(b"The quick brown fox jumps over the lazy dog. " * 8)
    file.flush()
    whole = json.loads(run("eval", *TINY, file.name, "--json").stdout)
    parts = json.loads(run("eval", *TINY, file.name, "--json", "--context", "100", "--stride", "50").stdout)
    text = run("eval", *TINY, file.name)
check("eval counts", whole["tokens"] == 360 and whole["scored"] == 359 and whole["windows"] == 1)
check("eval's figures agree with each other", abs(whole["nll"] * 359 - whole["nll_total"]) < 1e-4 * whole["nll_total"]
      and abs(math.exp(whole["nll"]) / whole["perplexity"] - 1) < 1e-6)
check("windows are stated", parts["windows"] == 7 and parts["scored"] == 359 and parts["context"] == 100 and parts["stride"] == 50)
check("eval in words", b"perplexity" in text.stdout and b"stride" in text.stdout, text)

# The engine, one step a token: the same likelihood, whatever keeps the keys while it has room for all.
ids = [(i * 7) % 50 + 3 for i in range(1, 61)]
path = source / "tests/data/zoo/llama-f32.gguf"
with tempfile.TemporaryDirectory() as folder:
    script = pathlib.Path(folder) / "given.lua"
    script.write_text(f"""local lathe = require "lathe"
local ids, model = {{ {", ".join(map(str, ids))} }}, lathe.model {{ "llama", path = "{path}" }}
for _, kvcache in ipairs {{ "paged", "contiguous", "sinks", "h2o", "prefix" }} do
  print(math.log(lathe.run {{ model = model, kvcache = kvcache, trace = false,
    workload = {{ {{ tokens = {{ ids[1] }}, forced = table.move(ids, 2, #ids, 1, {{}}) }} }} }}:perplexity()))
end
""")
    r = run("run", "-q", str(script))
    expected = json.loads(run("eval", "-m", str(path), "--ids", ",".join(map(str, ids)), "--json").stdout)["nll"]
    found = list(map(float, r.stdout.split()))
    check("given to the engine token by token, it is as likely", len(found) == 5 and max(abs(x - expected) for x in found) < 1e-5, r)

model = next((p for p in [*(pathlib.Path(f) / "smollm2-135m.gguf" for f in os.environ.get("LATHE_MODELS", "").split(":") if f),
                          source / "models/smollm2-135m.gguf"] if p.exists()), None)
if model:
    worst = 0
    for prompt in json.loads((source / "tests/data/golden_logits.json").read_text())["prompts"]:
        r = run("logits", "-m", str(model), *FLOAT32, "--ids", "-", "--top", "20", "--json", text=json.dumps(prompt["ids"]))
        found = {x["id"]: x["logprob"] for x in json.loads(r.stdout)}
        worst = max(worst, *(abs(found.get(i, -99) - logprob) for i, logprob in prompt["top"][:18]))
        if len(prompt["ids"]) > 1:
            r = run("eval", "-m", str(model), *FLOAT32, "--ids", "-", "--json", text=json.dumps(prompt["ids"]))
            worst = max(worst, abs(json.loads(r.stdout)["nll_total"] - prompt["nll"]) / len(prompt["ids"]))
    check(f"the real model agrees with transformers (within {worst:.1e})", worst <= 0.001)
else:
    print("the real model is not there: its part is left out")
if failures:
    sys.exit(f"{len(failures)} failed")
