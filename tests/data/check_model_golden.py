# SPDX-License-Identifier: MIT
"""Checks the model goldens against a second opinion: a plain float64 forward in numpy, in the GGUF's own layout.

It shares only the `gguf` package's dequantization with the scripts that made the goldens; rotation, masking and the rest are
written again here, from the papers. What it prints is also the noise floor: how far float32 transformers is from float64.

  python check_model_golden.py --model models/smollm2-135m.gguf
"""
import argparse
import json
import os
import struct

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

HERE = os.path.dirname(os.path.abspath(__file__))


def forward(path, ids):
    """→ log-probabilities (n, vocabulary), attention (layers, heads, n, n)."""
    reader = GGUFReader(path)
    arch = reader.fields["general.architecture"].contents()
    key = lambda name: reader.fields[f"{arch}.{name}"].contents() if f"{arch}.{name}" in reader.fields else None
    w = {t.name: dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    n, heads, kv_heads, eps = len(ids), key("attention.head_count"), key("attention.head_count_kv"), key("attention.layer_norm_rms_epsilon")
    d = key("attention.key_length") or key("embedding_length") // heads
    turn = key("rope.freq_base") ** (-2 * np.arange(d // 2) / d) / w.get("rope_freqs.weight", 1)
    if key("rope.scaling.type") == "linear":
        turn = turn / key("rope.scaling.factor")
    angle = (np.arange(n)[:, None] * turn)[:, None]                 # (n, 1, d/2)
    first, second = (slice(0, d, 2), slice(1, d, 2)) if arch == "llama" else (slice(0, d // 2), slice(d // 2, d))

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w[name]

    def rotate(x):                                                  # (n, heads, d)
        out = np.empty_like(x)
        out[..., first] = x[..., first] * np.cos(angle) - x[..., second] * np.sin(angle)
        out[..., second] = x[..., first] * np.sin(angle) + x[..., second] * np.cos(angle)
        return out

    x, attention = w["token_embd.weight"][ids], []
    for layer in range(key("block_count")):
        b = f"blk.{layer}."
        linear = lambda name, h: h @ w[b + name + ".weight"].T + w.get(b + name + ".bias", 0)
        h = norm(x, b + "attn_norm.weight")
        q = rotate(linear("attn_q", h).reshape(n, heads, d))
        k = rotate(linear("attn_k", h).reshape(n, kv_heads, d)).repeat(heads // kv_heads, 1)
        v = linear("attn_v", h).reshape(n, kv_heads, d).repeat(heads // kv_heads, 1)
        s = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(d)
        s[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
        s = np.exp(s - s.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        attention.append(s)
        x = x + linear("attn_output", np.einsum("hqk,khd->qhd", s, v).reshape(n, heads * d))
        h = norm(x, b + "ffn_norm.weight")
        gate = linear("ffn_gate", h)
        x = x + linear("ffn_down", gate / (1 + np.exp(-gate)) * linear("ffn_up", h))
    logits = norm(x, "output_norm.weight") @ w.get("output.weight", w["token_embd.weight"]).T
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True)), np.stack(attention)


def check_prompt(name, path, prompt):
    lp, _ = forward(path, prompt["ids"])
    nll = -sum(lp[p - 1, prompt["ids"][p]] for p in range(1, len(prompt["ids"])))
    top, total = max(abs(lp[-1, i] - v) for i, v in prompt["top"]), abs(nll - prompt["nll"])
    print(f"{name}, {len(prompt['ids'])} tokens: top 20 within {top:.1e}, nll within {total:.1e}", flush=True)
    assert top < 1e-4 and total < 1e-3


def check_attention(name, path):
    with open(os.path.join(HERE, f"golden_attention_{name}.bin"), "rb") as f:
        data = f.read()
    with open(os.path.join(HERE, f"golden_attention_{name}.json")) as f:
        attention = forward(path, json.load(f)["ids"])[1]
    magic, _, layers, heads, n, count, _ = struct.unpack_from("<8s6I", data)
    rows = np.frombuffer(data, "<u4", count, 32)
    weights = np.frombuffer(data, "<f4", -1, 32 + 4 * count)
    assert magic == b"LATHEATT" and attention.shape == (layers, heads, n, n)
    expected = np.concatenate([attention[a, h, q, :q + 1] for a in range(layers) for h in range(heads) for q in rows])
    assert expected.shape == weights.shape
    print(f"attention, {name}: within {np.abs(expected - weights).max():.1e}")
    assert np.abs(expected - weights).max() < 1e-5


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="the SmolLM2 GGUF")
    model = parser.parse_args().model
    with open(os.path.join(HERE, "golden_zoo.json")) as f:
        for entry in json.load(f):
            for prompt in entry["prompts"]:
                check_prompt(entry["file"], os.path.join(HERE, entry["file"]), prompt)
    with open(os.path.join(HERE, "golden_logits.json")) as f:
        for prompt in json.load(f)["prompts"]:
            check_prompt(prompt["name"], model, prompt)
    for name in ("short", "long"):
        check_attention(name, model)


if __name__ == "__main__":
    main()
