#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""lathe bench: its arithmetic on a model whose time is known, its four outputs, the engine beside it, and its sentences."""
import csv
import io
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile

lathe = os.environ["LATHE"]
SIM = "model=sim:step_us=1000,prefill_us=10,decode_us=100,prefill_context_ns=0,decode_context_ns=0"
failures = []


def check(what, condition):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)


def bench(*options, tmp=None):
    environment = dict(os.environ, **({"TMPDIR": tmp} if tmp else {}))
    return subprocess.run([lathe, "bench", *options], capture_output=True, text=True, timeout=300, env=environment)


def near(found, expected):
    return abs(found - expected) <= 1e-6 * abs(expected)


def known_time():
    r = bench("--set", SIM, "-p", "512,600", "-n", "8", "-b", "1,16", "-pg", "512,4", "-d", "0,100", "-t", "1", "-r", "3", "-o", "json")
    check("it ends well and says nothing on stderr", r.returncode == 0 and r.stderr == "")
    rows = {row["test"]: row for row in json.loads(r.stdout)}
    known = {  # microseconds: a step, its prompt tokens, its decoded ones; to this model a first position is a prompt's
        "pp512": 1000 + 5120, "pp600": 2000 + 6000, "tg8": 1010 + 7 * 1100, "tg8 x16": 1160 + 7 * 2600,
        "pp512+tg4": 6120 + 4 * 1100, "pp512+tg4 x16": 16 * 6120 + 4 * 2600,
    }
    check("each test once, without and with depth", sorted(rows) == sorted([*known, *(f"{name} @ d100" for name in known)]))
    for name, us in known.items():
        row = rows[name]
        tokens = (row["n_prompt"] + row["n_gen"]) * row["n_sequences"]
        check(f"{name} takes {us} us", near(row["avg_ns"], us * 1e3) and near(row["avg_ts"], tokens / us * 1e6))
        check(f"{name} is as quick each time", row["stddev_ts"] < 1e-6 and len(row["samples_ns"]) == len(row["samples_ts"]) == 3)
        first = row["n_sequences"] * 90 if name.startswith("tg") else 0  # with a depth the first is one like the others
        check(f"{name}'s depth isn't timed", near(rows[name + " @ d100"]["avg_ns"], (us + first) * 1e3)
              and rows[name + " @ d100"]["n_depth"] == 100)
    check("what isn't known is null", rows["tg8"]["limit"] is None and rows["tg8"]["engine_avg_ts"] is None)


def formats():
    options = ["--set", "model=tiny", "-p", "16", "-n", "4", "-r", "2", "-t", "1"]
    listed = json.loads(bench(*options, "-o", "json").stdout)
    names = ["build_commit", "build_number", "cpu_info", "gpu_info", "backends", "model_filename", "model_type", "model_size",
             "model_n_params", "n_batch", "n_ubatch", "n_threads", "type_k", "type_v", "n_gpu_layers", "n_prompt", "n_gen",
             "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "test", "samples_ns", "samples_ts"]
    check("JSON has llama-bench's fields", all(name in row for row in listed for name in names))
    for row in listed:
        check(f"{row['test']}: the limit is the lesser of memory's and arithmetic's",
              near(row["limit_ts"], min(row["memory_ts"], row["arithmetic_ts"])))
        check(f"{row['test']}: memory's is bandwidth over bytes",
              near(row["memory_ts"], row["read_bytes_per_s"] / row["bytes"] * (row["n_prompt"] + row["n_gen"])))
        check(f"{row['test']}: the share is the rate over it", near(row["limit_share"], row["avg_ts"] / row["limit_ts"]))
        check(f"{row['test']}: a model of floats is counted in floats", row["arithmetic"] == "f32" and row["int8_ops"] == 0)
    forced = json.loads(bench(*options, "-o", "json", "--arithmetic", "int8", "--no-limits").stdout)
    check("what products count as can be said", all(row["int8_ops"] > 0 and row["limit"] is None for row in forced))

    rows = list(csv.DictReader(io.StringIO(bench(*options, "-o", "csv").stdout)))
    check("CSV reads back", [row["test"] for row in rows] == ["pp16", "tg4"] and float(rows[0]["avg_ts"]) > 0)
    db = sqlite3.connect(":memory:")
    db.executescript(bench(*options, "-o", "sql").stdout)
    check("SQL runs", [t for t, in db.execute('select test from lathe_bench where avg_ts > 0 and "limit" is not null')] == ["pp16", "tg4"])
    table = bench(*options, "--explain")
    check("the table names the share", "of what memory allows" in table.stdout or "of what f32 arithmetic allows" in table.stdout)
    lines = [line for line in table.stdout.splitlines() if line.startswith("|")]
    check("its columns stand below each other", len(lines) == 4 and len({tuple(i for i, c in enumerate(line) if c == "|") for line in lines}) == 1)
    check("the explanation has the figures", "GB/s" in table.stdout and "How the limits come about" in table.stdout)
    r = bench(*options, "--explain", "-o", "json")
    check("beside JSON the explanation goes to stderr", json.loads(r.stdout) and "How the limits come about" in r.stderr)


def engine(folder):
    r = bench("--set", "model=tiny", "-p", "32", "-n", "12", "-b", "1,5", "-d", "0,40", "-t", "1", "-r", "2", "--engine", "-o", "json",
              tmp=folder)
    print(r.stderr)
    rows = {row["test"]: row for row in json.loads(r.stdout)}
    for name in ("pp32", "tg12", "tg12 x5", "tg12 @ d40", "tg12 x5 @ d40"):
        row = rows[name]
        check(f"{name} went through the engine", row["engine_avg_ts"] > 0 and 0 < row["engine_own_share"] < 1
              and len(row["engine_samples_ts"]) == 2)
    check("a prompt behind a context can't be told apart, and is null", rows["pp32 @ d40"]["engine_avg_ts"] is None)
    check("its databases are gone", os.listdir(folder) == [])
    slow = bench("--set", SIM, "-p", "0", "-n", "10", "-b", "4", "-r", "1", "--engine", "-o", "json", tmp=folder)
    row = json.loads(slow.stdout)[0]
    check("forty tokens of a simulated model take ten steps of its time at least",
          row["engine_avg_ns"] >= 10 * 1400e3 and near(row["avg_ns"], 1040e3 + 9 * 1400e3))
    missing = bench("--set", "model=tiny", "-p", "0", "-n", "4", "-r", "1", "--engine", tmp=folder + "/absent")
    check("no place for the database is a sentence", missing.returncode == 1 and "TMPDIR" in missing.stderr
          and missing.stderr.count("\n") == 1)


def sentences():
    cases = [
        ([], 2, "which model?"),
        (["-m", "x", "-p", "many"], 2, "-p many: numbers from 0"),
        (["-m", "x", "-p", "5,"], 2, "-p 5,: numbers"),
        (["-m", "x", "-n", "-3"], 2, "-n -3: numbers"),
        (["-m", "x", "-b", "0"], 2, "-b 0: numbers from 1"),
        (["-m", "x", "-r", "0"], 2, "-r 0: a number from 1"),
        (["-m", "x", "-pg", "512"], 2, "-pg 512: a prompt's tokens"),
        (["-m", "x", "-o", "xml"], 2, "-o xml: table, json, csv or sql"),
        (["-m", "x", "--kv-type", "f8"], 2, "--kv-type f8: f32, f16 or q8_0"),
        (["-m", "x", "--arithmetic", "int4"], 2, "int8 or f32"),
        (["-m", "x", "-p", "0", "-n", "0"], 2, "no test is left"),
        (["-m", "x", "--thread_count", "3"], 2, "there is no option --thread_count"),
        (["-m", "x", "word"], 2, '"word" belongs to no option'),
        (["-m", "no-such-model"], 1, "no-such-model"),
        (["--set", "model=tiny", "-p", "100000", "-n", "0"], 1, "needs a context of 100000 tokens"),
    ]
    for options, status, words in cases:
        r = bench(*options)
        check(f"{' '.join(options) or 'nothing'}: one sentence", r.returncode == status and words in r.stderr and r.stdout == ""
              and r.stderr.count("\n") == 1 and r.stderr.startswith("lathe bench: "))
    check("--help says all", all(word in bench("--help").stdout for word in ("-pg", "--engine", "--explain", "LATHE_KERNELS")))


with tempfile.TemporaryDirectory() as where:
    known_time()
    formats()
    engine(str(pathlib.Path(where)))
    sentences()
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
