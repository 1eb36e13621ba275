#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sixteen requests in continuous batches give, token for token, what they give one at a time,
wherever the margin between the two best tokens is over 0.01 nats; on the real model.

Where the two first differ, `lathe logits` is asked how close the best two were."""
import json
import os
import subprocess
import sys
import tempfile

LATHE, SOURCE = os.environ["LATHE"], os.environ["LATHE_SOURCE"]
MODEL = os.path.join(os.environ.get("LATHE_MODELS", os.path.join(SOURCE, "models")).split(":")[0], "smollm2-135m.gguf")
MARGIN, OUTPUTS = 0.01, 32

SCRIPT = """
local lathe = require "lathe"
local prompts = lathe.json.decode [==[%s]==]
local model = lathe.model { "llama", path = "%s" }
local requests = {}
for i, p in ipairs(prompts) do requests[i] = { at = 0, prompt = p, output_tokens = %d } end
local result = {}
for name, limit in pairs { alone = 1, batched = 16 } do
  local r = lathe.run { model = model, workload = requests, batching = { "continuous", max_requests = limit },
                        trace = false, label = name }
  result[name] = {}
  for i, o in ipairs(r:outputs()) do result[name][i] = o.tokens end
end
result.prompts = {}
for i, p in ipairs(prompts) do result.prompts[i] = model:encode(p) end
print("RESULT " .. lathe.json.encode(result))
"""

PROMPTS = ["The capital of France is", "Once upon a time", "def fibonacci(n):", "1, 2, 3, 4,", "Water boils at",
           "The three laws of robotics are", "Dear Sir or Madam,", "In the beginning", "SELECT name FROM users WHERE",
           "La vie est", "The mitochondria is the", "To make bread you need flour,", "E = mc^2 means that",
           "A haiku about the sea:", "The opposite of hot is", "Once more unto the breach, dear friends, once more; " * 8]


def lathe(*args, **kw):
    done = subprocess.run([LATHE, *args], capture_output=True, text=True, timeout=280, **kw)
    if done.returncode != 0:
        sys.exit(f"lathe {args[0]} failed: {done.stderr}")
    return done.stdout


def margin(ids):
    top = json.loads(lathe("logits", "-m", MODEL, "--ids", ",".join(map(str, ids)), "--top", "2", "--json"))
    return top[0]["logprob"] - top[1]["logprob"]


def main():
    if not os.path.exists(MODEL):
        print("skipped: the model isn't there (sh scripts/fetch_model.sh)")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(folder, "sixteen.lua")
        with open(script, "w") as f:
            f.write(SCRIPT % (json.dumps(PROMPTS), MODEL, OUTPUTS))
        out = lathe("run", script, cwd=folder)
    result = json.loads(next(line for line in out.splitlines() if line.startswith("RESULT "))[7:])
    compared = differing = 0
    for prompt, alone, batched in zip(result["prompts"], result["alone"], result["batched"]):
        assert len(alone) == len(batched) == OUTPUTS
        for i, (a, b) in enumerate(zip(alone, batched)):
            if a == b:
                compared += 1
                continue
            close = margin(prompt + alone[:i])
            assert close <= MARGIN, f"token {i}: {a} alone, {b} in a batch, with a margin of {close:.4f} nats"
            differing += 1
            break
    print(f"{compared} tokens compared, {differing} of {len(PROMPTS)} requests part at a margin of {MARGIN} or less")
    assert compared > len(PROMPTS) * OUTPUTS / 2
    return 0


sys.exit(main())
