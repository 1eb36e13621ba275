# SPDX-License-Identifier: MIT
"""A recording program killed with SIGKILL at random moments loses no more than it may.

crash.py [--count N] [--seed S]     N kills (10), at moments that the seed decides

Of each kill: integrity_check says ok; rows are a prefix of what was recorded, without a gap;
everything recorded more than a flush interval before the kill is there, and everything that
recorder_flush had promised; attention is whole; the run says `running` until the next open,
and `cut_short` after it.
"""
import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

FLUSH_MS = 200  # as the product has it


def one(program, path, draw, explicit):
    child = subprocess.Popen([program, path, str(FLUSH_MS), "2000", "700" if explicit else "0"],
                             stdout=subprocess.PIPE, bufsize=0)
    first = child.stdout.readline()
    if not first.startswith(b"run "):
        sys.exit(f"the program did not start: {first!r}")
    run = int(first.split()[1])
    # Explicit flushes promise at any moment; the interval only once something is that old.
    wait = draw.uniform(0.0, 0.5) if explicit else draw.uniform(0.1, 0.6) + FLUSH_MS / 1e3
    os.set_blocking(child.stdout.fileno(), False)
    said, until = b"", time.monotonic() + wait
    while time.monotonic() < until:
        said += child.stdout.read() or b""
        time.sleep(0.002)
    killed = time.monotonic_ns()
    child.send_signal(signal.SIGKILL)
    child.wait()
    os.set_blocking(child.stdout.fileno(), True)
    said += child.stdout.read() or b""
    promised, ages = 0, [(0, 0.0)]  # so many tokens, the last of them so many milliseconds old
    for line in said.decode().split("\n")[:-1]:
        words = line.split()
        if words[0] == "flushed":
            promised = int(words[1])
        else:
            ages.append((int(words[0]), (killed - int(words[1])) / 1e6))
    return run, promised, ages


def check(path, run, promised, old, state):
    db = sqlite3.connect(path)
    ask = lambda sql, *values: db.execute(sql, values).fetchone()[0]
    assert ask("PRAGMA integrity_check") == "ok"
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    found = ask("SELECT count(*) FROM token WHERE run_id = ?", run)
    last = ask("SELECT ifnull(max(position), -1) FROM token WHERE run_id = ?", run)
    assert last == found - 1, f"run {run}: {found} tokens, the last is {last}: a gap"
    assert found >= promised, f"run {run}: {found} tokens, {promised} were flushed"
    assert found >= old, f"run {run}: {found} tokens, {old} were older than the flush interval"
    wrong = ask("SELECT count(*) FROM attention_token WHERE run_id = ? AND (length(data) <> 30 * 9 * 16 OR position % 16 <> 0"
                " OR data <> CAST(replace(hex(zeroblob(length(data))), '00', char(position & 127)) AS BLOB))", run)
    assert wrong == 0, f"run {run}: {wrong} attention rows are not what was recorded"
    heads = ask("SELECT count(*) FROM attention_token WHERE run_id = ?", run)
    assert heads * 16 >= max(promised, old), f"run {run}: {heads} attention rows"
    assert ask("SELECT state FROM run WHERE id = ?", run) == state
    db.close()
    return found


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--count", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()
    program = os.path.join(os.environ.get("LATHE_BUILD", "build/dev"), "tests", "e2e", "crash_writer")
    if not os.path.exists(program):
        print(f"{program} is not built")
        sys.exit(77)
    draw = random.Random(arguments.seed)
    tested, oldest_loss = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(arguments.count):
            path = os.path.join(folder, f"crash{i // 10}.db")  # ten kills a file: each is opened again as it was left
            run, promised, ages = one(program, path, draw, i % 2 == 0)
            old = max(tokens for tokens, age in ages if age > FLUSH_MS or tokens == 0)
            if i % 3:  # else the recorder is the first to open it
                check(path, run, promised, old, "running")
            subprocess.run([program, path], check=True)
            found = check(path, run, promised, old, "cut_short")
            tested += max(promised, old) > 0
            loss = max((age for tokens, age in ages if tokens > found), default=0.0)
            oldest_loss = max(oldest_loss, loss)
            print(f"kill {i + 1}: {ages[-1][0]} recorded, {promised} flushed, {old} old enough, {found} found,"
                  f" the oldest loss {loss:.0f} ms old")
    assert tested > arguments.count / 2, "too few kills came late enough to prove anything"
    print(f"{arguments.count} kills: the oldest row lost was {oldest_loss:.1f} ms old, of {FLUSH_MS} ms allowed")


main()
