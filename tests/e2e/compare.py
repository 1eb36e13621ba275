#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench/compare: ratios and intervals against peers that are scripts with known rates, and what it says of absent ones."""
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
compare = source / "tests/bench/compare"
SIM = "--set model=sim:step_us=1000,prefill_us=10,decode_us=100,prefill_context_ns=0,decode_context_ns=0 --no-limits"
failures = []

# What llama.cpp's programs print, as far as it is read: 100 tokens a second of prompt, 50 of generation, 400 of eight sequences.
LLAMA_BENCH = """#!/usr/bin/env python3
import json, sys
value = lambda name: int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else 0
rate = 100.0 if value("-p") else 50.0
print(json.dumps([{"build_commit": "abc123", "n_prompt": value("-p"), "n_gen": value("-n"), "n_depth": value("-d"),
                   "n_threads": value("-t"), "samples_ns": [1] * value("-r"), "samples_ts": [rate] * value("-r")}]))
"""
LLAMA_BATCHED = """#!/usr/bin/env python3
import json, sys
assert sys.argv[sys.argv.index("-npl") + 1] == "8" and sys.argv[sys.argv.index("-ntg") + 1] == "4"
print("main: n_kv_max = 104")
print(json.dumps({"pp": 1, "tg": 4, "pl": 8, "t_tg": 0.08, "speed_tg": 400.0, "speed_pp": 1.0}))
"""


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


def run(*options):
    words = [sys.executable, str(compare), "--lathe", lathe, "-m", "absent.gguf", *options]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)


def intervals():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("compare_script", str(compare))
    spec = importlib.util.spec_from_loader("compare_script", loader)
    script = importlib.util.module_from_spec(spec)
    loader.exec_module(script)
    check("equal values have no width", script.interval([3.0] * 5) == (3.0, 3.0, 3.0))
    draw = random.Random(7)
    held = 0
    for i in range(200):
        values = [draw.gauss(10, 1) for _ in range(15)]
        middle, low, high = script.interval(values, resamples=400, seed=i)
        held += low <= 10 <= high
        assert low <= middle <= high and middle == statistics.median(values)
    check(f"95% intervals hold the truth about so often: {held} of 200", 176 <= held <= 200)
    check("tests have parts", script.parse_test("tg64x16@d512") == (0, 64, 16, 512) and script.parse_test("pp512") == (512, 0, 1, 0))


def known_rates(folder):
    program(folder / "llama-bench", LLAMA_BENCH)
    options = ["--lathe-options", SIM, "--peer", f"llama_cpp={folder}/llama-bench", "--tests", "pp100,tg4,tg4x8,tg4@d10",
               "--rounds", "3", "-t", "1"]
    alone = run(*options)
    check("without the second program several sequences are left out in words",
          alone.returncode == 0 and "llama_cpp, tg4x8: left out: several sequences need" in alone.stderr)
    program(folder / "llama-batched-bench", LLAMA_BATCHED)
    r = run(*options, "-o", str(folder / "x.md"))
    check("it ends well", r.returncode == 0 and "left out" not in r.stderr)
    text = (folder / "x.md").read_text()
    print(text, r.stderr)
    rows = {(row[0], row[1]): row[2:] for row in re.findall(r"^\| (\S+) \| (\w+) \| ([\d.]+) \| ([\d.]+ to [\d.]+) \| ([\d.–]+) \|", text, re.M)}
    known = {"pp100": (100 / 2000e-6, 100), "tg4": (4 / (1010e-6 + 3 * 1100e-6), 50),
             "tg4x8": (32 / (1080e-6 + 3 * 1800e-6), 400), "tg4@d10": (4 / 4400e-6, 50)}
    for word, (ours, theirs) in known.items():
        check(f"{word}: both rates, and their ratio", float(rows[word, "lathe"][0]) == round(ours, 1)
              and float(rows[word, "llama_cpp"][0]) == theirs and abs(float(rows[word, "llama_cpp"][2]) - ours / theirs) < 0.006)
    check("the peer's version is told", "llama_cpp abc123" in text)


def absent(folder):
    r = run("--lathe-options", SIM, "--tests", "tg4", "--rounds", "1", "-t", "1", "--peer", f"llama_cpp={folder}/nowhere",
            "--peer", f"ctranslate2={sys.executable}:{folder}", "--peer", f"openvino_genai={sys.executable}:{folder}",
            "--peer", f"onnxruntime_genai={sys.executable}:{folder}")
    print(r.stderr)
    check("what is absent is left out, the rest goes on", r.returncode == 0 and "| tg4 | lathe |" in r.stdout)
    check("a program that isn't there", f"llama_cpp is left out: there is no {folder}/nowhere" in r.stderr)
    for name in ("ctranslate2", "openvino_genai", "onnxruntime_genai"):
        found = re.search(rf"^{name} \(.*\), tg4: left out: (.*)$", r.stderr, re.M)
        check(f"{name} or its model isn't there", found and (f"no {name}" in found[1] or "is expected" in found[1]))
    bad = run("--peer", "vllm=/bin/true")
    check("an unknown peer is a sentence", bad.returncode == 1 and bad.stderr.count("\n") == 1 and "one of ctranslate2, llama_cpp" in bad.stderr)
    bad = run("--tests", "xx5")
    check("an unknown test too", bad.returncode == 2 and "xx5: a test is pp512" in bad.stderr)
    bad = run("--tests", "tg4", "--rounds", "1", "--lathe-options", "--set model=sim:step=1")
    check("if lathe can't, it fails and says why", bad.returncode == 1 and "lathe, tg4: left out: status 1" in bad.stderr)


with tempfile.TemporaryDirectory() as where:
    intervals()
    known_rates(pathlib.Path(where))
    absent(pathlib.Path(where))
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
