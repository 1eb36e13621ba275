#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""llama.cpp's own programs: llama-bench, and for several sequences the llama-batched-bench beside it.

llama-bench has no batched decode; llama-batched-bench times prompts and generation apart, so that of its
lines only the generation's seconds count. It needs a prompt: of the depth, or of one token."""
import argparse
import json
import pathlib
import subprocess
import sys

ABSENT = 77


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True, type=pathlib.Path, help="llama-bench")
    for letter in "mpnbdtro":
        parser.add_argument(f"-{letter}", type=str if letter in "mo" else int, default="json" if letter == "o" else 1)
    return parser.parse_args()


def run(words):
    r = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if r.returncode:
        sys.exit((r.stderr.strip() or f"{words[0]}: status {r.returncode}").splitlines()[-1])
    return r.stdout


def batched(a, version):
    program = a.program.with_name("llama-batched-bench")
    if not program.exists():
        print(f"several sequences need {program}, which is not there", file=sys.stderr)
        sys.exit(ABSENT)
    prompt, rates = max(a.d, 1), []
    for _ in range(a.r):
        out = run([program, "-m", a.m, "-npp", prompt, "-ntg", a.n, "-npl", a.b, "-t", a.t, "-tb", a.t, "-c",
                   (prompt + a.n + 8) * a.b, "-ub", 512, "--output-format", "jsonl"])
        line = next(text for text in out.splitlines() if text.startswith("{") and '"speed_tg"' in text)
        rates.append(json.loads(line)["speed_tg"])
    return [{"build_commit": version, "n_threads": a.t, "n_gen": a.n, "n_depth": a.d, "samples_ts": rates}]


def main():
    a = options()
    if a.b > 1:
        json.dump(batched(a, ""), sys.stdout)
        return
    words = [a.program, "-m", a.m, "-p", a.p, "-n", a.n, "-t", a.t, "-r", a.r, "-o", "json"]
    rows = json.loads(run(words + (["-d", a.d] if a.d else [])))
    json.dump([row for row in rows if row["n_prompt"] == a.p and row["n_gen"] == a.n], sys.stdout)


main()
