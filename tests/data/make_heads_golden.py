# SPDX-License-Identifier: MIT
"""Golden scores of attention heads, from Hugging Face transformers in float32 on the GGUF's own weights: which heads are
induction heads (Olsson et al. 2022), and which are sinks (Xiao et al. 2024).

  python make_heads_golden.py --model models/smollm2-135m.gguf                 # a minute on two cores

golden_heads.json, heads as [layer][head]:

  induction  50 sequences of 64 different random tokens (`sequences`, ordinary ones), each said twice; a head's score is the mean
             weight, over sequences and positions q = 64 … 127, on the key q − 63: the token after q's previous occurrence.
             `top`: [layer, head, score], best first
  previous   over the same: the mean weight of positions 1 … 127 on the key before
  sinks      the first 256 tokens of three texts: mean weight on key 0 over positions from 64 on; `plain`, and `special` with
             <|im_start|> in front (256 tokens with it). `uniform`: what equal weights would give, the mean of 1 / (q + 1)
"""
import argparse
import json
import os

import numpy as np
import torch

from make_model_golden import load
from make_tokenizer_golden import build, read

HERE = os.path.dirname(os.path.abspath(__file__))
SEQUENCES, HALF, ORDINARY, SPECIAL = 50, 64, 17, 1           # ids below 17 are special tokens; 1 is <|im_start|>
TEXTS, LENGTH, FROM = ("emma", "opticks", "the_weir"), 256, 64


def attention(model, ids):
    """(layers, heads, n, n)."""
    return torch.cat(model.model(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions)


def rounded(scores):
    return [[round(float(v), 5) for v in layer] for layer in scores]


def sinks(model, sequences):
    return sum(attention(model, ids)[:, :, FROM:, 0].double().mean(-1) for ids in sequences) / len(sequences)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="the SmolLM2 GGUF")
    parser.add_argument("--threads", type=int, default=2, help="1 where others compute, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, model = build(*read(args.model)), load(args.model)

    generator = np.random.Generator(np.random.Philox(1))
    sequences = [(generator.permutation(model.config.vocab_size - ORDINARY)[:HALF] + ORDINARY).tolist() for _ in range(SEQUENCES)]
    induction, previous = 0, 0
    for s in sequences:
        weights = attention(model, s + s).double()
        induction = induction + weights.diagonal(1 - HALF, 2, 3)[..., 1:].mean(-1) / SEQUENCES     # q − 63, from q = 64 on
        previous = previous + weights.diagonal(-1, 2, 3).mean(-1) / SEQUENCES
    order = sorted(((round(float(v), 5), a, h) for a, layer in enumerate(induction) for h, v in enumerate(layer)), reverse=True)

    texts = []
    for name in TEXTS:
        with open(os.path.join(HERE, "texts", name + ".txt"), encoding="utf8") as f:
            texts.append(tokenizer.encode(f.read(), add_special_tokens=False).ids[:LENGTH])
    plain, special = sinks(model, texts), sinks(model, [[SPECIAL] + ids[:-1] for ids in texts])
    golden = {"model": "smollm2-135m", "sequences": sequences, "induction": rounded(induction),
              "top": [[a, h, v] for v, a, h in order[:20]], "previous": rounded(previous),
              "sinks": {"texts": TEXTS, "tokens": LENGTH, "from": FROM, "special_token": SPECIAL, "plain": rounded(plain), "special": rounded(special),
                        "uniform": round(float(np.mean(1 / np.arange(FROM + 1, LENGTH + 1))), 5)}}
    with open(os.path.join(HERE, "golden_heads.json"), "w") as f:
        f.write("{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items()) + "\n}\n")
    print("induction:", golden["top"])
    print(f"mass on the first token: plain {plain.mean():.3f}, special {special.mean():.3f}, uniform {golden['sinks']['uniform']}")


if __name__ == "__main__":
    main()
