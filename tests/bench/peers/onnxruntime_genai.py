#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ONNX Runtime GenAI, by a Python that has it: --folder is the built model (int4), with its genai_config.json."""
import json
import pathlib
import sys

import peer

sys.path.pop(0)  # or a file of this folder would be the package that it is named after


def main():
    a = peer.options()
    try:
        import numpy
        import onnxruntime_genai
    except ImportError:
        peer.absent("this Python has no onnxruntime_genai")
    if not (pathlib.Path(a.folder) / "genai_config.json").exists():
        peer.absent(f"{a.folder or 'no folder'}: a model built for ONNX Runtime GenAI is expected")
    config = onnxruntime_genai.Config(a.folder)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": a.t}}}}))
    model = onnxruntime_genai.Model(config)

    def call(prompt, generated, sequences):
        wish = onnxruntime_genai.GeneratorParams(model)
        wish.set_search_options(max_length=prompt + generated, min_length=prompt + generated, batch_size=sequences, do_sample=False)
        generator = onnxruntime_genai.Generator(model, wish)
        generator.append_tokens(numpy.array([peer.tokens(prompt, s) for s in range(sequences)], dtype=numpy.int32))
        for _ in range(generated):
            generator.generate_next_token()

    peer.bench(a, onnxruntime_genai.__version__, call)


main()
