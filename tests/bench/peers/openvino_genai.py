#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""OpenVINO GenAI with continuous batching, by a Python that has it: --folder is the exported model (int8 or int4)."""
import pathlib
import sys

import peer

sys.path.pop(0)  # or a file of this folder would be the package that it is named after


def main():
    a = peer.options()
    try:
        import numpy
        import openvino
        import openvino_genai
    except ImportError:
        peer.absent("this Python has no openvino_genai")
    if not (pathlib.Path(a.folder) / "openvino_model.xml").exists():
        peer.absent(f"{a.folder or 'no folder'}: a model exported for OpenVINO is expected")
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 2
    scheduler.enable_prefix_caching = False
    pipeline = openvino_genai.ContinuousBatchingPipeline(a.folder, scheduler, "CPU", {"INFERENCE_NUM_THREADS": a.t})

    def call(prompt, generated, sequences):
        wish = openvino_genai.GenerationConfig()
        wish.max_new_tokens = wish.min_new_tokens = generated
        wish.ignore_eos = True
        prompts = [openvino.Tensor(numpy.array([peer.tokens(prompt, s)], dtype=numpy.int64)) for s in range(sequences)]
        pipeline.generate(prompts, [wish] * sequences)

    peer.bench(a, openvino_genai.__version__, call)


main()
