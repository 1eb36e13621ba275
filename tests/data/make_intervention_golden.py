# SPDX-License-Identifier: MIT
"""Golden answers to interventions and probes of layers, of SmolLM2-135M-Instruct by Hugging Face transformers in float32,
with hooks: the weights are those of the GGUF, dequantized (make_model_golden.py).

Each case is one intervention as <lathe/intervention.h> has it; its answer is the top 20 of the last row and the negative
log-likelihood of the prompt. A patch's activations are those of the other prompt at the same layer and positions, so that
the file holds none: whoever checks takes them by its own probe.

  python make_intervention_golden.py --model models/smollm2-135m.gguf
"""
import argparse
import json
import os

import torch

from make_model_golden import load, log_softmax, top
from make_tokenizer_golden import build, read
from texts import STORY

HERE = os.path.dirname(os.path.abspath(__file__))
HEAD_SCALE, HEAD_SET, HEAD_UNIFORM, KEYS_DROP, KEYS_KEEP, ATTENTION_SCALE, MLP_SCALE, PATCH = range(1, 9)
OTHER = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was"

CASES = [
    {"name": "one head removed", "kind": HEAD_SCALE, "layers": [5], "heads": [3], "factor": 0.0},
    {"name": "three heads of two layers doubled", "kind": HEAD_SCALE, "layers": [0, 12], "heads": [0, 4, 8], "factor": 2.0},
    {"name": "all heads of a layer removed, from position 10", "kind": HEAD_SCALE, "layers": [1], "heads": list(range(9)),
     "factor": 0.0, "first": 10},
    {"name": "two heads uniform", "kind": HEAD_UNIFORM, "layers": [3, 20], "heads": [1, 7]},
    {"name": "the first key dropped by all heads of a layer", "kind": KEYS_DROP, "layers": [7], "heads": list(range(9)),
     "keys": [0]},
    {"name": "some keys dropped by two heads", "kind": KEYS_DROP, "layers": [2, 15], "heads": [0, 4], "keys": [1, 2, 5, 17]},
    {"name": "some keys kept by all heads of a layer", "kind": KEYS_KEEP, "layers": [9], "heads": list(range(9)),
     "keys": [0, 1, 11]},
    {"name": "attention halved", "kind": ATTENTION_SCALE, "layers": [4, 5], "factor": 0.5},
    {"name": "an MLP removed", "kind": MLP_SCALE, "layers": [8], "factor": 0.0},
    {"name": "an MLP scaled in the middle", "kind": MLP_SCALE, "layers": [29], "factor": 1.5, "first": 6, "last": 20},
    {"name": "positions 4 to 8 patched", "kind": PATCH, "layers": [10], "first": 4, "last": 8},
    {"name": "the last position patched", "kind": PATCH, "layers": [22], "first": 23, "last": 23},
]


def held(case, n):
    """The rows that a case holds for."""
    first, last = case.get("first", 0), case.get("last", -1)
    return slice(first, n if last < 0 else last + 1)


def hook(model, case, n, other):
    """Registers what carries out one case; returns the handles."""
    layers, rows, size, handles = model.model.layers, held(case, n), model.config.head_dim, []
    for number in case["layers"]:
        layer, kind = layers[number], case["kind"]
        columns = [h * size + i for h in case.get("heads", []) for i in range(size)]

        def scale(x, factor=case.get("factor"), columns=columns):
            x = x.clone()
            if columns:
                x[:, rows, columns] *= factor
            else:
                x[:, rows] *= factor
            return x

        if kind == HEAD_SCALE:
            handles.append(layer.self_attn.o_proj.register_forward_pre_hook(lambda m, args, scale=scale: (scale(args[0]),)))
        elif kind == HEAD_UNIFORM:      # queries of zero: every score is 0
            handles.append(layer.self_attn.q_proj.register_forward_hook(lambda m, args, out, scale=scale: scale(out, 0.0)))
        elif kind in (KEYS_DROP, KEYS_KEEP):
            mask = torch.full((n, n), float("-inf")).triu(1).repeat(1, model.config.num_attention_heads, 1, 1)
            unseen = [k for k in range(n) if (k in case["keys"]) == (kind == KEYS_DROP)]
            for h in case["heads"]:
                for q in range(n)[rows]:
                    mask[0, h, q, [k for k in unseen if k != q]] = float("-inf")

            def look(module, args, kwargs, mask=mask):
                return args, {**kwargs, "attention_mask": mask}

            handles.append(layer.self_attn.register_forward_pre_hook(look, with_kwargs=True))
        elif kind == ATTENTION_SCALE:
            handles.append(layer.self_attn.o_proj.register_forward_hook(lambda m, args, out, scale=scale: scale(out)))
        elif kind == MLP_SCALE:
            handles.append(layer.mlp.register_forward_hook(lambda m, args, out, scale=scale: scale(out)))
        else:
            def patch(module, args, out, number=number):
                x = (out[0] if isinstance(out, tuple) else out).clone()
                x[:, rows] = other[number][:, rows]
                return (x, *out[1:]) if isinstance(out, tuple) else x

            handles.append(layer.register_forward_hook(patch))
    return handles


def residuals(model, ids):
    """After each layer: what its hook sees (the last of transformers' own hidden states is normalized)."""
    seen, handles = {}, []
    for number, layer in enumerate(model.model.layers):
        def keep(module, args, out, number=number):
            seen[number] = (out[0] if isinstance(out, tuple) else out).clone()
        handles.append(layer.register_forward_hook(keep))
    model(torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def answer(model, ids):
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    lp = log_softmax(logits)
    return {"nll": round(-sum(float(lp[p - 1, ids[p]]) for p in range(1, len(ids))), 6), "top": top(logits[-1])}


def norms(model, ids, number):
    """Of one layer, all rows: before, attention, feed, after, and each head's output before the output projection."""
    layer, parts = model.model.layers[number], {}
    handles = [layer.register_forward_hook(lambda m, args, out: parts.update(
                   before=args[0], after=out[0] if isinstance(out, tuple) else out)),
               layer.self_attn.o_proj.register_forward_hook(lambda m, args, out: parts.update(heads=args[0], attention=out)),
               layer.mlp.register_forward_hook(lambda m, args, out: parts.update(feed=out))]
    model(torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    size = lambda x: [round(float(v), 6) for v in x.double().norm(dim=-1).flatten()]
    return {"layer": number, **{k: size(parts[k][0]) for k in ("before", "attention", "feed", "after")},
            "heads": size(parts["heads"][0].reshape(len(ids), -1, model.config.head_dim))}


def lens(model, x, number, rows):
    """The likeliest five after one layer, of some rows."""
    logits = model.lm_head(model.model.norm(x[number][0, rows]))
    return {"layer": number, "rows": rows, "top": [top(row, 5) for row in logits]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="the SmolLM2 GGUF")
    args = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = build(*read(args.model))
    model = load(args.model)
    n = 24
    ids, other_ids = (tokenizer.encode(text, add_special_tokens=False).ids[:n] for text in (STORY, OTHER))
    assert len(ids) == len(other_ids) == n
    with torch.inference_mode():
        x, other, cases = residuals(model, ids), residuals(model, other_ids), []
        plain = answer(model, ids)
        for case in CASES:
            handles = hook(model, case, n, other)
            cases.append({**case, **answer(model, ids)})
            for handle in handles:
                handle.remove()
            print(f"{case['name']}: nll {cases[-1]['nll']:.3f} (plain {plain['nll']:.3f})")
            assert {k: cases[-1][k] for k in plain} != plain
        assert answer(model, ids) == plain
        out = {"model": "smollm2-135m", "ids": ids, "other_ids": other_ids,
               "norms": [norms(model, ids, number) for number in (0, 11, 29)],
               "lens": [lens(model, x, number, [0, 5, 23]) for number in (0, 10, 20, 29)]}
    text = json.dumps(out, separators=(",", ":"))[:-1]
    with open(os.path.join(HERE, "golden_intervention.json"), "w") as f:
        f.write(text + ',"cases":[\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n")


if __name__ == "__main__":
    main()
