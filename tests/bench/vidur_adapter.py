#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Vidur's event loop alone on a trace, for simulator_bench.py; run by a Python that has vidur (PyPI).

Vidur (MLSys 2024) predicts each step's time by a random forest over profiled operators. Here every
step takes the same time, so that what is measured is its loop: events, schedulers, batches. Its
requests are built before the clock starts, and its reports are not written.

    /path/to/python vidur_adapter.py trace.csv --step-ms 23 --batch 128 [--metrics]
"""
import argparse
import csv
import json
import os
import resource
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("trace")
parser.add_argument("--replicas", type=int, default=1)
parser.add_argument("--step-ms", type=float, default=23.0)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--chunk", type=int, default=512)
parser.add_argument("--metrics", action="store_true")
o = parser.parse_args()
o.trace = os.path.abspath(o.trace)
os.chdir(tempfile.mkdtemp(prefix="vidur-"))  # it writes where it runs

from vidur.config import (CacheConfig, ClusterConfig, MetricsConfig, ReplicaConfig, SarathiSchedulerConfig,  # noqa: E402
                          SimulationConfig, SyntheticRequestGeneratorConfig)
from vidur.entities import Request  # noqa: E402
from vidur import simulator as vidur_simulator  # noqa: E402
from vidur.execution_time_predictor import ExecutionTimePredictorRegistry  # noqa: E402


class Constant:
    """Both the predictor and what it predicts."""
    total_time = model_time = o.step_ms / 1000
    steps = 0

    def get_execution_time(self, batch, stage):
        Constant.steps += 1
        return self


class Replay:
    def generate(self):
        with open(o.trace, newline="", encoding="utf-8") as file:
            return [Request(float(r["arrived_at"]), int(r["num_prefill_tokens"]), int(r["num_decode_tokens"]))
                    for r in csv.DictReader(file)]


ExecutionTimePredictorRegistry.get = classmethod(lambda cls, *a, **k: Constant())
vidur_simulator.RequestGeneratorRegistry.get = classmethod(lambda cls, *a, **k: Replay())
vidur_simulator.Simulator._write_output = lambda self: None
on = o.metrics
simulator = vidur_simulator.Simulator(SimulationConfig(
    log_level="warning",
    cluster_config=ClusterConfig(
        num_replicas=o.replicas, replica_config=ReplicaConfig(num_pipeline_stages=1, tensor_parallel_size=1), cache_config=CacheConfig(num_blocks=32768),
        replica_scheduler_config=SarathiSchedulerConfig(batch_size_cap=o.batch, chunk_size=o.chunk)),
    request_generator_config=SyntheticRequestGeneratorConfig(max_tokens=16384),
    metrics_config=MetricsConfig(write_metrics=on, write_json_trace=False, enable_chrome_trace=False, store_plots=False,
                                 store_request_metrics=on, store_batch_metrics=on, store_utilization_metrics=on)))
# As many at once as the option says: Vidur's own bound comes from the memory that it thinks weights leave.
for scheduler in simulator.scheduler._replica_schedulers.values():
    scheduler._max_batch_size = scheduler._max_micro_batch_size = o.batch
began = time.process_time()
simulator.run()
print(json.dumps({"cpu_s": time.process_time() - began, "steps": Constant.steps,
                  "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "simulated_s": simulator._time}))
