#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each KV cache policy's likelihood of given texts, evicting step by step as in decoding, is what transformers says on the same
weights with the equivalent mask and positions (tests/data/make_kv_golden.py), within 0.5% in perplexity; and with an unlimited
budget every policy says what full attention says, token for token.

By default three texts of 160 tokens at a budget of 48. All of them, 2,048 tokens each, which takes long:
  cmake --build … -t kv_golden_full      or      kv_golden.py --full [--texts n] [--threads n] [policy …]
"""
import argparse
import array
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import zlib

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
model, data = source / "models/smollm2-135m.gguf", source / "tests/data"
WITHIN = 0.005
WITHIN_SHORT = {"q8_0": 0.01}   # keys that differ by 1e-7 round otherwise here and there: the reference itself moves by 0.5% in 160 tokens
failures = []

SCRIPT = """
local lathe = require "lathe"
local job = lathe.json.decode(io.read "a")
local model <close> = lathe.model { "llama", path = job.model, compute = "exact" }
for _, policy in ipairs(job.policies) do
  local r <close> = lathe.run { model = model, kvcache = policy.kvcache, workload = policy.requests, seed = 1, label = policy.name,
                                engine = { max_requests = 16, batch_requests = 16, context_tokens = job.context, threads = job.threads },
                                trace = policy.trace and { tokens = "output" } or false }
  local answer = { name = policy.name, perplexity = {}, tokens = {} }
  for i, request in ipairs(policy.requests) do
    if request.forced then answer.perplexity[i] = r:perplexity(i) end
  end
  if policy.trace then
    for _, row in ipairs(r:query "select token from token where run_id = :run and kind = 'output' order by request_id, position") do
      answer.tokens[#answer.tokens + 1] = row.token
    end
  end
  print("answer " .. lathe.json.encode(answer))
end
"""


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}", flush=True)
    if not condition:
        failures.append(what)


def token_ids(name, count):
    text = (data / "texts" / (name + ".txt")).read_bytes()
    r = subprocess.run([lathe, "tokenize", "-m", str(model), "--ids"], input=text, capture_output=True, timeout=120)
    assert r.returncode == 0, r.stderr.decode()
    ids = json.loads(r.stdout)[:count]
    assert len(ids) == count, (name, len(ids))
    return ids


def kvcache(policy):
    """A golden's name → the stage that computes it."""
    kind, *words = policy.split("/")
    if kind in ("full", "f32"):
        return {1: "paged", "dtype": "f32"}
    if kind in ("f16", "q8_0"):
        return {1: "paged", "dtype": kind}
    if kind == "window":
        return {1: "window", "budget": int(words[0])}
    if kind == "sinks":
        return {1: "sinks", "sinks": int(words[0]), "budget": int(words[1]), "positions": words[2]}
    if kind == "h2o":
        return {1: "h2o", "scope": words[0], "budget": int(words[1])}
    return {1: "random", "budget": int(words[0])}


def stage(options):
    """As Lua has it: JSON knows no table with both a first element and names, so the script is given its parts as text."""
    return "{" + ", ".join(f'"{v}"' if k == 1 else f"{k} = {json.dumps(v)}" for k, v in options.items()) + "}"


def run(folder, policies, context):
    """[(name, kvcache, requests, trace)] → {name: answer}."""
    script = pathlib.Path(folder) / "kv.lua"
    parts = ["local stages = {" + ", ".join(f'["{name}"] = {stage(cache)}' for name, cache, _, _ in policies) + "}"]
    script.write_text("\n".join(parts) + SCRIPT.replace("policy.kvcache", "stages[policy.name]"))
    job = {"model": str(model), "context": context, "threads": args.threads,
           "policies": [{"name": name, "requests": requests, "trace": trace} for name, _, requests, trace in policies]}
    r = subprocess.run([lathe, "run", "--quiet", str(script)], cwd=folder, input=json.dumps(job), capture_output=True, text=True)
    check("it ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    print(r.stderr)
    answers = [json.loads(line[7:]) for line in r.stdout.splitlines() if line.startswith("answer ")]
    return {a["name"]: a for a in answers}


def forced(ids):
    return {"tokens": ids[:1], "forced": ids[1:]}


def against(folder, texts, goldens, policies, allowed={}):
    """texts: {name: ids}; goldens: {name: {policy: nll}}; each policy is one run of all the texts."""
    count = len(next(iter(texts.values())))
    answers = run(folder, [(p, kvcache(p), [forced(ids) for ids in texts.values()], False) for p in policies], count + 1)
    for policy in policies:
        if policy not in answers:
            check(f"{policy} ran", False)
            continue
        found = answers[policy]["perplexity"]
        expected = [math.exp(goldens[name][policy] / (count - 1)) for name in texts]
        worst = max(abs(f / e - 1) for f, e in zip(found, expected, strict=True))
        check(f"{policy}: {', '.join(f'{f:.3f}' for f in found)}; the reference says the same within {100 * worst:.3f}%",
              worst <= allowed.get(policy, WITHIN))


def short(folder):
    golden = json.loads((data / "golden_kv_short.json").read_text())
    texts = {name: token_ids(name, golden["tokens"]) for name in golden["texts"]}
    policies = sorted(next(iter(golden["texts"].values())))
    full = {name: nll["full"] for name, nll in golden["texts"].items()}
    for policy in policies:
        if "48" in policy:
            check(f"{policy} isn't full attention by the reference",
                  all(abs(golden["texts"][n][policy] / full[n] - 1) > 1e-4 for n in texts))
    against(folder, texts, golden["texts"], policies, WITHIN_SHORT)


def unlimited(folder):
    """Greedy answers: as many different stages as there are ways of keeping everything."""
    texts = {name: token_ids(name, 60) for name in ("emma", "opticks")}
    stages = {"paged": {1: "paged"}, "contiguous": {1: "contiguous"}, "window": {1: "window", "budget": 0},
              "sinks, original": {1: "sinks", "budget": 0, "positions": "original"}, "sinks, cache": {1: "sinks", "budget": 0, "positions": "cache"},
              "random": {1: "random", "budget": 0}, "prefix": {1: "prefix"}, "window of more than there is": {1: "window", "budget": 4096},
              "sinks of more, cache": {1: "sinks", "budget": 4096, "positions": "cache"}, "random of more": {1: "random", "budget": 4096}}
    for scope in ("request", "layer", "head"):
        stages[f"h2o, {scope}"] = {1: "h2o", "budget": 0, "scope": scope}
        stages[f"h2o of more, {scope}"] = {1: "h2o", "budget": 4096, "scope": scope}
    known = subprocess.run([lathe, "plugins", "kvcache"], capture_output=True, text=True).stdout
    stages = {name: s for name, s in stages.items() if s[1] in known}
    requests = [{"tokens": ids, "output_tokens": 24} for ids in texts.values()]
    answers = run(folder, [(name, s, requests, True) for name, s in stages.items()], 128)
    for name in stages:
        check(f"{name}: without a limit the same 48 tokens as full attention",
              name in answers and len(answers[name]["tokens"]) == 48 and answers[name]["tokens"] == answers["paged"]["tokens"])


def full(folder, wanted, count):
    golden = json.loads((data / "golden_kv.json").read_text())
    texts = {name: token_ids(name, golden["tokens"]) for name in sorted(golden["texts"])[:count]}
    for name, ids in texts.items():
        check(f"{name}: the same tokens as the reference had", zlib.crc32(array.array("i", ids).tobytes()) == golden["texts"][name]["ids"])
    sums = {name: {p: nll[-1] for p, nll in golden["texts"][name]["nll"].items()} for name in texts}
    everywhere = set.intersection(*(set(s) for s in sums.values()))
    against(folder, texts, sums, [p for p in sorted(everywhere) if not wanted or p in wanted])


parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true")
parser.add_argument("--texts", type=int, default=100, help="so many of the texts, by name")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("policies", nargs="*")
args = parser.parse_args()
if not model.exists():
    print("skipped: there is no " + str(model))
    sys.exit(77)
with tempfile.TemporaryDirectory() as where:
    if args.full:
        full(where, args.policies, args.texts)
    else:
        short(where)
        unlimited(where)
sys.exit(1 if failures else 0)
