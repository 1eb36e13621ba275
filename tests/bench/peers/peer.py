# SPDX-License-Identifier: MIT
"""What adapters of Python packages share: options, the differences that time a test, llama-bench's JSON.

An adapter says how long a call takes that reads a prompt and generates so many tokens, for so many
sequences. From that: a prompt's time is that of one token after it; generation's is the time of n + 1
tokens less that of one, after the same prompt (of the depth, or of one token); a prompt behind a depth
is the difference of two prompts."""
import argparse
import json
import sys
import time

ABSENT = 77


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default="", help="of the model as this engine reads it")
    for letter in "mpnbdtro":
        parser.add_argument(f"-{letter}", type=str if letter in "mo" else int, default="json" if letter == "o" else 1)
    return parser.parse_args()


def absent(sentence):
    print(sentence, file=sys.stderr)
    sys.exit(ABSENT)


def tokens(count, sequence=0, vocabulary=40000):
    """Ids that stand for text: past the special ones at the beginning."""
    return [100 + (k * 7919 + sequence * 104729) % (vocabulary - 100) for k in range(count)]


def timed(call, *arguments):
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def bench(a, version, call):
    """call(prompt_tokens, generated, sequences) does it; generated is one at least."""
    call(max(a.d + a.p, 1), 2, a.b)  # memory is taken, kernels are chosen
    rates = []
    for _ in range(a.r):
        if a.n:
            seconds = timed(call, max(a.d, 1), a.n + 1, a.b) - timed(call, max(a.d, 1), 1, a.b)
        else:
            seconds = timed(call, a.d + a.p, 1, a.b) - (timed(call, a.d, 1, a.b) if a.d else 0)
        rates.append((a.p + a.n) * a.b / max(seconds, 1e-9))
    json.dump([{"build_commit": version, "n_threads": a.t, "n_prompt": a.p, "n_gen": a.n, "n_depth": a.d, "samples_ts": rates}],
              sys.stdout)
