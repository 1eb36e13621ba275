#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe generate`: streams, stops, repeats itself by seed, and says what is wrong in a sentence."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

lathe, source = os.environ["LATHE"], pathlib.Path(os.environ["LATHE_SOURCE"])
failures = []
TINY = ("--set", "model=tiny")


def run(*words, **more):
    more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([lathe, "generate", *words], capture_output=True, timeout=120, **more)


def finish(process, seconds):
    """What it wrote; a process that does not end is ended, so that none is left behind."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-500:]}\n  stderr: {result.stderr[-500:]}")


def one_line(result):
    return result.stderr.count(b"\n") == 1


r = run("--help")
check("--help", r.returncode == 0 and b"usage: lathe generate" in r.stdout, r)
r = run("-p", "x")
check("no model is bad usage", r.returncode == 2 and b"which model" in r.stderr and one_line(r), r)
r = run(*TINY, "-p", "x", "--temprature", "1")
check("an unknown option suggests the nearest", r.returncode == 2 and b"--temperature" in r.stderr and one_line(r), r)
for option, value in (("-n", "0"), ("-n", "many"), ("--temperature", "-1"), ("--temperature", "nan"), ("--top-p", "0"), ("--top-p", "1.5"),
                      ("--min-p", "1"), ("--top-k", "-1"), ("--seed", "1.5"), ("-n", "99999999999")):
    r = run(*TINY, "-p", "x", option, value)
    check(f"{option} {value} is bad usage", r.returncode == 2 and value.encode() in r.stderr and one_line(r), r)
r = run(*TINY, "-p", "x", "more")
check("a word too many is bad usage", r.returncode == 2 and b"more" in r.stderr, r)
r = run("-m", "no-such-model", "-p", "x")
check("a missing model is one sentence", r.returncode == 1 and b"no-such-model" in r.stderr and one_line(r), r)
r = run(*TINY, "-p", "x" * 100000)
check("a prompt beyond the context is one sentence", r.returncode == 1 and b"context" in r.stderr and one_line(r), r)
r = run(*TINY, "-p", "", "-n", "3")
check("an empty prompt ends in a sentence or a text, not in a crash", r.returncode in (0, 1), r)

r = run(*TINY, "-p", "hello", "-n", "12", "--stats")
tokens = re.search(rb"output +(\d+) tokens", r.stderr)
check("--stats counts", r.returncode == 0 and tokens and 1 <= int(tokens[1]) <= 12 and re.search(rb"prompt +5 tokens", r.stderr), r)
again = run(*TINY, "-p", "hello", "-n", "12")
check("greedy repeats itself", again.returncode == 0 and again.stdout == r.stdout and again.stderr == b"", again)
stdin = run(*TINY, "-p", "-", "-n", "12", stdin=None, input=b"hello")
check("-p - reads stdin", stdin.stdout == r.stdout, stdin)
piped = run(*TINY, "-n", "12", stdin=None, input=b"hello")
check("so does a pipe without -p", piped.stdout == r.stdout, piped)
a, b, c = (run(*TINY, "-p", "hello", "-n", "24", "--temperature", "1.5", "--seed", seed) for seed in ("1", "1", "2"))
check("a seed repeats, another differs", a.returncode == 0 and a.stdout == b.stdout and a.stdout != c.stdout, c)
r = run(*TINY, "-p", "hello", "-n", "4", "--set", "sampler=gready")
check("--set names the nearest plugin", r.returncode == 1 and b"greedy" in r.stderr and one_line(r), r)
r = run(*TINY, "--chat", "-p", "hi")
check("--chat without a template is one sentence", r.returncode in (0, 1) and (r.returncode == 0 or one_line(r)), r)

# pieces come as they are made: with 20 ms a step, bytes must arrive in several reads
process = subprocess.Popen([lathe, "generate", "--set", "model=tiny:delay_us=20000", "-p", "hello", "-n", "60", "--temperature", "1"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
os.set_blocking(process.stdout.fileno(), True)
reads, began = [], time.monotonic()
while chunk := os.read(process.stdout.fileno(), 4096):
    reads.append((time.monotonic() - began, len(chunk)))
process.wait()
check("text streams", len(reads) >= 5 and reads[-1][0] - reads[0][0] > 0.2)

process = subprocess.Popen([lathe, "generate", "--set", "model=tiny:delay_us=50000", "-p", "hello", "-n", "2000", "--temperature", "1",
                            "--context", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
time.sleep(1)
process.send_signal(signal.SIGINT)
began = time.monotonic()
out, err = finish(process, 20)
check("Ctrl-C ends it in good order", process.returncode == 1 and b"interrupted" in err and err.count(b"\n") == 1
      and time.monotonic() - began < 3 and out.endswith(b"\n"))
if process.returncode != 1:
    print(process.returncode, out, err)

model = source / "models/smollm2-135m.gguf"
if model.exists():
    r = run("-m", str(model), "--chat", "-p", "What is the capital of France?", "-n", "40", "--stats",
            "--set", "model=llama:compute=blas")  # where a close race decides, as float32 does
    check("the real model answers and stops at its end token", r.returncode == 0 and b"Paris" in r.stdout
          and b"<|im_end|>" not in r.stdout and b"ended by stop" in r.stderr, r)
    r = run("-m", str(model), "-p", "The capital of France is", "-n", "8")
    check("the real model goes on", r.returncode == 0 and b"Paris" in r.stdout, r)
else:
    print("skipped: models/smollm2-135m.gguf is absent")
sys.exit(1 if failures else 0)
