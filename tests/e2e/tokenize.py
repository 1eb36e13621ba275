#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe tokenize`: golden strings through the whole program, text and back, and what is wrong in a sentence."""
import base64
import json
import os
import pathlib
import subprocess
import sys

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
data, models = source / "tests/data", pathlib.Path(os.environ.get("LATHE_MODELS", source / "models"))
GPT2, BYTE = ("-m", str(data / "vocab_gpt-2.gguf")), ("--set", "tokenizer=byte")
failures = []


def run(*words, given=b""):
    return subprocess.run([lathe, "tokenize", *words], capture_output=True, timeout=120, input=given)


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-500:]}\n  stderr: {result.stderr[-500:]}")


def gives(what, wanted, *words, given=b""):
    r = run(*words, given=given)
    check(what, r.returncode == 0 and r.stdout == wanted and r.stderr == b"", r)


def refuses(what, status, word, *words):
    r = run(*words)
    check(what, r.returncode == status and word in r.stderr and r.stderr.count(b"\n") == 1, r)


def golden(name, model, step):
    """Every step-th string, and all that aren't UTF-8, by stdin."""
    cases = [json.loads(line) for line in open(data / f"golden_tokenizer_{name}.jsonl", encoding="utf-8")]
    chosen = cases[::step] + [c for c in cases if b"\xff" in base64.b64decode(c["b"])][:5]
    different = 0
    for c in chosen:
        r = run("-m", str(model), "--ids", *(["--parse-special"] if c["special"] else []), given=base64.b64decode(c["b"]))
        different += r.returncode != 0 or json.loads(r.stdout) != c["ids"]
    check(f"{len(chosen)} golden strings of {name} give their ids", different == 0 and len(chosen) > 10)


gives("byte tokens and special ones", b"[104, 105, 258]\n", *BYTE, "--ids", "--parse-special", "hi<|im_start|>")
gives("stdin, with bytes that aren't UTF-8", b"[239, 191, 189, 10]\n", *BYTE, "--ids", given=b"\xff\n")
gives("a line a token, escaped", b'    104  "h"\n     10  "\\n"\n    195  "\\xc3"\n    169  "\\xa9"\n', *BYTE, "h\né")
gives("--decode", "hé".encode(), *BYTE, "--decode", "[104, 195, 169]")
gives("--decode - reads stdin", b"ab", *BYTE, "--decode", "-", given=b"97,98")
gives("no text, no tokens", b"[]\n", *GPT2, "--ids", "")
for name in ("gpt-2", "qwen2", "llama-bpe"):
    golden(name, data / f"vocab_{name}.gguf", 60)
if (models / "smollm2-135m.gguf").exists():
    golden("smollm", models / "smollm2-135m.gguf", 200)
else:
    print("left out: smollm2-135m.gguf isn't in", models)

r = run("--help")
check("--help", r.returncode == 0 and b"usage: lathe tokenize" in r.stdout, r)
refuses("no model is bad usage", 2, b"no model", "x")
refuses("an unknown option suggests the nearest", 2, b"--ids", *BYTE, "--idz", "x")
refuses("two texts are bad usage", 2, b"one text", *BYTE, "a", "b")
refuses("a missing value is bad usage", 2, b"needs a value", "-m")
refuses("--set of another kind is bad usage", 2, b"tokenizer=", "--set", "sampler=greedy", "x")
refuses("a missing file", 1, b"nowhere", "-m", "/nowhere/m.gguf", "x")
refuses("a folder", 1, b"", "-m", str(data), "x")
refuses("a file that is no GGUF", 1, b"GGUF", "-m", str(data / "README.md"), "x")
refuses("an id beyond the vocabulary", 1, b"9999999", *GPT2, "--decode", "9999999")
refuses("ids that are none", 1, b"token id", *GPT2, "--decode", "1,x")
refuses("a tokenizer that isn't there", 1, b"byte", "--set", "tokenizer=byt", "x")
sys.exit(len(failures) > 0)
