#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""CTranslate2, by a Python that has it: --folder is the converted model (int8), whose vocabulary names the tokens."""
import json
import pathlib
import sys

import peer

sys.path.pop(0)  # or a file of this folder would be the package that it is named after


def main():
    a = peer.options()
    try:
        import ctranslate2
    except ImportError:
        peer.absent("this Python has no ctranslate2")
    vocabulary = pathlib.Path(a.folder) / "vocabulary.json"
    if not vocabulary.exists():
        peer.absent(f"{a.folder or 'no folder'}: a model converted for CTranslate2 is expected")
    words = json.loads(vocabulary.read_text())
    generator = ctranslate2.Generator(a.folder, device="cpu", compute_type="int8", intra_threads=a.t, inter_threads=1)

    def call(prompt, generated, sequences):
        starts = [[words[i] for i in peer.tokens(prompt, s, len(words))] for s in range(sequences)]
        generator.generate_batch(starts, max_length=generated, min_length=generated, sampling_topk=1, beam_size=1,
                                 include_prompt_in_result=False)

    peer.bench(a, ctranslate2.__version__, call)


main()
