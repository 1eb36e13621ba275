# SPDX-License-Identifier: MIT
"""What HdrHistogram (its Python port, PyPI hdrhistogram 0.10.8, 3 significant digits) says of latencies.

One line a series: a rule that Python and C both follow, how many values, and pairs of percentile and value. The values of
a series are exact integers: v(0) = 1 + seed, v(i+1) = (v(i) * 1103515245 + 12345) mod 2^31, and the latency is
base + v(i) mod spread, with every `tail`-th one 100 times as long.

  python make_latency_golden.py           # writes golden_latency.txt; 2 s
"""
from hdrh.histogram import HdrHistogram

PERCENTILES = [0.1, 1, 10, 25, 50, 75, 90, 99, 99.9, 99.99, 100]
SERIES = [  # seed, count, base, spread, tail
    (1, 1, 1000, 1, 7), (2, 2, 1000, 1000000, 7), (3, 1000, 0, 30, 1000000), (4, 5000, 40, 100, 50),
    (5, 20000, 100, 3000, 100), (6, 20000, 100000, 5000000, 33), (7, 20000, 1000000, 2000000000, 1000),
]


def values(seed, count, base, spread, tail):
    v = 1 + seed
    for i in range(count):
        v = (v * 1103515245 + 12345) % 2**31
        yield (base + v % spread) * (100 if i % tail == tail - 1 else 1)


with open("golden_latency.txt", "w") as out:
    for series in SERIES:
        h = HdrHistogram(1, 2**42, 3)
        for value in values(*series):
            h.record_value(value)
        answers = (f"{p} {h.get_value_at_percentile(p)}" for p in PERCENTILES)
        out.write(" ".join(map(str, series)) + f" {len(PERCENTILES)} " + " ".join(answers) + "\n")
