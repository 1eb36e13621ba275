#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the simulator takes of one core, and how that grows.

    tests/bench/simulator_bench.py --trace azure_llm_2023_conv.csv --vidur ~/vidur/bin/python --report

Every figure is the user and system time of a whole process (all its threads, the start and the
writing of rows included), which a busy machine changes less than the time on the wall; the best and the
median of rounds that take turns. Vidur's is that of its event loop alone: see vidur_adapter.py.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STEP_MS = 23  # beside Vidur: about what the default model takes for this trace's steps


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--lathe", default=str(ROOT / "build/release/lathe"))
    p.add_argument("--trace", default=str(ROOT / "experiments/data/sample_trace.csv"), help="arrivals and lengths")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--requests", type=int, default=1_000_000, help="of the fleet")
    p.add_argument("--replicas", type=int, default=1000)
    p.add_argument("--load", type=float, default=0.8)
    p.add_argument("--doublings", type=int, default=4)
    p.add_argument("--each", type=int, default=200, help="requests a replica, where replicas are doubled")
    p.add_argument("--skip", default="", help="parts to leave out: trace, vidur, fleet, doubling, with commas")
    p.add_argument("--vidur", help="a Python that has vidur installed")
    p.add_argument("--report", action="store_true", help="print Markdown")
    return p.parse_args()


def run_child(command, cwd):
    """→ its output, user + system seconds, MiB at most."""
    output = os.path.join(cwd, "output")
    with open(output, "wb") as file:
        child = subprocess.Popen(command, stdout=file, cwd=cwd)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)}: exit status {child.returncode}")
    return pathlib.Path(output).read_text(encoding="utf-8"), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def lathe(o, **given):
    arguments = [x for k, v in given.items() for x in (f"--{k}", str(v))]
    with tempfile.TemporaryDirectory() as folder:
        text, cpu, rss = run_child([o.lathe, "run", "--quiet", str(HERE / "simulator.lua"), "--", *arguments], folder)
    found = {k: float(v) for k, v in (line.split("\t") for line in text.splitlines() if "\t" in line)}
    return found | {"cpu_s": cpu, "rss_mb": rss}


def vidur(o, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        text, whole, _ = run_child([o.vidur, str(HERE / "vidur_adapter.py"), o.trace, "--step-ms", str(STEP_MS), *arguments], folder)
    found = json.loads(text.splitlines()[-1])
    return found | {"whole_s": whole}


def show(title, header, rows, markdown):
    rows = [[str(x) for x in row] for row in rows]
    if markdown:
        print(f"\n## {title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for row in rows:
            print(f"| {' | '.join(row)} |")
    else:
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        print(f"\n{title}\n")
        for row in [header, *rows]:
            print("  ".join(x.ljust(w) for x, w in zip(row, widths)).rstrip())
    sys.stdout.flush()


def in_turn(ways, rounds):
    """Each way once a round; → name: its results."""
    found = {name: [] for name in ways}
    for n in range(rounds):
        names = list(ways)
        for name in names[n % len(names):] + names[:n % len(names)]:
            found[name].append(ways[name]())
    return found


def best_and_median(results):
    cpu = [r["cpu_s"] for r in results]
    return min(cpu), statistics.median(cpu)


def trace_part(o):
    ways = {rows: lambda rows=rows: lathe(o, trace=o.trace, rows=rows) for rows in ("none", "requests", "steps", "step_requests")}
    found = in_turn(ways, o.rounds)
    rows = []
    for name, results in found.items():
        best, median = best_and_median(results)
        rows.append([name, f"{best:.2f}", f"{median:.2f}", f"{1e9 * best / results[0]['tokens']:.0f}",
                     f"{max(r['rss_mb'] for r in results):.0f}"])
    one = found["none"][0]
    show(f"A trace on one replica: {one['requests']:.0f} requests, {one['tokens'] / 1e6:.2f} M tokens, {one['steps']:.0f} steps",
         ["rows", "best, s of a core", "median", "ns a token", "MiB"], rows, o.report)


def vidur_part(o):
    if not o.vidur:
        print("\nVidur was not run: --vidur takes the path of a Python that has it (python3 -m venv v; v/bin/pip install vidur).")
        return
    ways = {"lathe, rows=none": lambda: lathe(o, trace=o.trace, rows="none", step_ms=STEP_MS),
            "lathe, rows=requests": lambda: lathe(o, trace=o.trace, rows="requests", step_ms=STEP_MS),
            "Vidur's loop, metrics off": lambda: vidur(o), "Vidur's loop, metrics on": lambda: vidur(o, "--metrics")}
    found = in_turn(ways, min(o.rounds, 3))
    first = best_and_median(found["lathe, rows=none"])[0]
    rows = []
    for name, results in found.items():
        best, median = best_and_median(results)
        rows.append([name, f"{best:.2f}", f"{median:.2f}", f"{results[0]['steps']:.0f}", f"{best / first:.0f}"])
    show(f"The same trace beside Vidur, every step {STEP_MS} ms, chunks of 512, at most 128 requests a step",
         ["", "best, s of a core", "median", "steps", "× the first"], rows, o.report)


def fleet_part(o):
    r = lathe(o, requests=o.requests, replicas=o.replicas, load=o.load, rows="requests")
    show(f"A fleet: {o.requests} requests over {o.replicas} replicas, router p2c",
         ["s of a core", "MiB", "tokens", "steps", "ns a token", "requests/s offered", "of what can be borne", "refused"],
         [[f"{r['cpu_s']:.1f}", f"{r['rss_mb']:.0f}", f"{r['tokens'] / 1e6:.1f} M", f"{r['steps'] / 1e6:.2f} M",
           f"{1e9 * r['cpu_s'] / r['tokens']:.0f}", f"{r['rate']:.0f}", f"{r['rate'] / r['bearable'] / o.replicas:.2f}",
           f"{r['refused']:.0f}"]], o.report)


def exponent(sizes, times):
    x, y = [math.log(s) for s in sizes], [math.log(t) for t in times]
    mx, my = statistics.fmean(x), statistics.fmean(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)


def doubling_part(o):
    """n log n from 2^4 to 2^0 of the size has, over those sizes, an exponent of 1 + 1 / ln n: 1.07 at a million."""
    fixed = max(1, o.replicas // 10)
    series = {
        f"requests, over {fixed} replicas": [(o.requests // 5 >> i, fixed) for i in reversed(range(o.doublings + 1))],
        f"replicas, with {o.each} requests each": [(o.each * max(1, o.replicas >> i), max(1, o.replicas >> i))
                                                   for i in reversed(range(o.doublings + 1))],
    }
    for name, points in series.items():
        ways = {p: lambda p=p: lathe(o, requests=p[0], replicas=p[1], load=o.load, rows="requests") for p in points}
        found = in_turn(ways, min(o.rounds, 3))
        best = [best_and_median(found[p])[0] for p in points]
        steps = [found[p][0]["steps"] for p in points]
        sizes = [p[0] if name.startswith("requests") else p[1] for p in points]
        rows = [[p[0], p[1], f"{b:.2f}", f"{b / best[i - 1]:.2f}" if i else "", f"{1e6 * b / s:.2f}",
                 f"{max(r['rss_mb'] for r in found[p]):.0f}"] for i, (p, b, s) in enumerate(zip(points, best, steps))]
        show(f"Doubling {name}", ["requests", "replicas", "best, s of a core", "× before", "µs a step", "MiB"], rows, o.report)
        print(f"\nTime grows as size^{exponent(sizes, best):.2f} (least squares); n log n would be about "
              f"size^{1 + 1 / math.log(max(3, math.sqrt(sizes[0] * sizes[-1]))):.2f} here.")


def main():
    o = options()
    o.trace, o.lathe = os.path.abspath(o.trace), os.path.abspath(o.lathe)
    if o.report:
        print("# What the simulator takes of one core\n\nUser and system seconds of the whole process; "
              f"`tests/bench/simulator_bench.py`, {o.rounds} rounds in turn.")
    skip = o.skip.split(",")
    for name, part in {"trace": trace_part, "vidur": vidur_part, "fleet": fleet_part, "doubling": doubling_part}.items():
        if name not in skip:
            part(o)


if __name__ == "__main__":
    main()
