# SPDX-License-Identifier: MIT
"""Tiny GGUF models with seeded random weights, one for each tensor type and each variant of the architecture, and what
transformers says of them.

Every matrix of a file, the embedding too, has the type in its name; norms, biases and rope_freqs are F32. Weights are drawn,
quantized by the `gguf` package, written, read back, dequantized and put into transformers. That package can't quantize to
K-quants, so their blocks are drawn as bytes (any bytes are a valid block) with scales that give weights of a sensible size.
Blocks with subnormal half-precision scales occur, as they do in real files.

The model is random: its text is noise. But logits spread over several units, so that an error shows in the top 20.

  python make_gguf_zoo.py                 # writes zoo/*.gguf and golden_zoo.json
"""
import glob
import json
import math
import os

import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from gguf import GGUFWriter, TokenType
from gguf.quants import quantize
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from make_model_golden import golden, load
from make_tokenizer_golden import build, read
from texts import STORY

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")

SMALL = dict(arch="llama", layers=2, hidden=64, heads=4, kv_heads=2, head_size=16, ffn=96, base=10000.0, eps=1e-5,
             tied=True, type=T.F16)
WIDE = dict(SMALL, layers=1, hidden=256, heads=8, kv_heads=1, head_size=32, ffn=256)      # K-quants want rows of 256
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
ZOO = {
    **{"llama-" + t.name.lower(): dict(SMALL, type=t) for t in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0,
        T.Q5_1)},
    **{"llama-" + t.name.lower(): dict(WIDE, type=t) for t in (T.Q4_K, T.Q5_K, T.Q6_K)},
    "llama-mha-untied": dict(SMALL, kv_heads=4, tied=False, eps=1e-3, type=T.Q8_0),
    "llama-mqa-base": dict(SMALL, kv_heads=1, base=500000.0),
    "llama-rope-linear": dict(SMALL, rope=dict(rope_type="linear", factor=4.0)),
    "llama-rope-freqs": dict(SMALL, rope=LLAMA3),
    "llama-rope-yarn": dict(SMALL, rope=YARN),
    "llama-key-length": dict(SMALL, head_size=24),                                          # heads * head_size is not hidden
    "qwen2-q8_0": dict(SMALL, arch="qwen2", base=1000000.0, eps=1e-6, type=T.Q8_0),
    "qwen2-f16": dict(SMALL, arch="qwen2"),
}
# K-quant: (bytes a block, offset of d in it, mean of d, mean of dmin): w = d * scale * q - dmin * min, or d * scale * (q - 32)
BLOCKS = {T.Q4_K: (144, 0, 3e-4, 2.2e-3), T.Q5_K: (176, 0, 1.5e-4, 2.2e-3), T.Q6_K: (210, 208, 5e-5, None)}


def vocabulary(pre):
    """256 bytes, 24 merges, three special tokens. The embedding is the largest matrix of these models: keep it small."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([STORY], trainer)
    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get) + SPECIAL
    types = [int(TokenType.NORMAL)] * (len(tokens) - len(SPECIAL)) + [int(TokenType.CONTROL)] * len(SPECIAL)
    return pre, tokens, types, [" ".join(m) for m in state["merges"]]


def llama3_factors(c):
    """What llama.cpp's converter stores as rope_freqs: each frequency is divided by its factor."""
    r, out = c["rope"], []
    for i in range(c["head_size"] // 2):
        wave = 2 * math.pi * c["base"] ** (2 * i / c["head_size"])
        turns = r["original_max_position_embeddings"] / wave
        if turns > r["high_freq_factor"]:
            out.append(1.0)
        elif turns < r["low_freq_factor"]:
            out.append(r["factor"])
        else:
            smooth = (turns - r["low_freq_factor"]) / (r["high_freq_factor"] - r["low_freq_factor"])
            out.append(1 / ((1 - smooth) / r["factor"] + smooth))
    assert 1.0 in out and r["factor"] in out and len(set(out)) > 2
    return np.array(out, np.float32)


def matrix(writer, rng, name, kind, rows, columns, std):
    if kind in BLOCKS:
        size, at, d, dmin = BLOCKS[kind]
        blocks = rng.integers(0, 256, (rows * columns // 256, size), dtype=np.uint8)
        scale = (std * 16 * rng.uniform(0.5, 1.5, len(blocks))).astype(np.float32)
        blocks[:, at:at + 2] = (d * scale).astype("<f2").view(np.uint8).reshape(-1, 2)
        if dmin:
            blocks[:, 2:4] = (dmin * scale).astype("<f2").view(np.uint8).reshape(-1, 2)
        data = blocks.reshape(rows, columns // 256 * size)
    else:
        data = quantize(rng.normal(0, std, (rows, columns)).astype(np.float32), kind)
    if kind in (T.F32, T.F16):
        writer.add_tensor(name, data)
    else:
        writer.add_tensor(name, data, raw_dtype=kind)


def write(path, name, c, words):
    rng = np.random.default_rng(int.from_bytes(name.encode()[-8:], "little"))
    pre, tokens, types, merges = words
    w = GGUFWriter(path, c["arch"])
    w.add_name(f"lathe zoo {name}")
    w.add_context_length(256)
    w.add_embedding_length(c["hidden"])
    w.add_block_count(c["layers"])
    w.add_feed_forward_length(c["ffn"])
    w.add_head_count(c["heads"])
    w.add_head_count_kv(c["kv_heads"])
    w.add_rope_freq_base(c["base"])
    w.add_rope_dimension_count(c["head_size"])
    w.add_layer_norm_rms_eps(c["eps"])
    w.add_vocab_size(len(tokens))
    if c["head_size"] * c["heads"] != c["hidden"]:
        w.add_key_length(c["head_size"])
        w.add_value_length(c["head_size"])
    if c.get("rope", {}).get("rope_type") == "linear":
        w.add_string(f"{c['arch']}.rope.scaling.type", "linear")
        w.add_float32(f"{c['arch']}.rope.scaling.factor", c["rope"]["factor"])
    if c.get("rope", {}).get("rope_type") == "yarn":
        w.add_string(f"{c['arch']}.rope.scaling.type", "yarn")
        w.add_float32(f"{c['arch']}.rope.scaling.factor", c["rope"]["factor"])
        w.add_uint32(f"{c['arch']}.rope.scaling.original_context_length", c["rope"]["original_max_position_embeddings"])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_bos_token_id(tokens.index("<|endoftext|>"))
    w.add_eos_token_id(tokens.index("<|im_end|>"))
    w.add_add_bos_token(False)
    w.add_chat_template(CHATML)

    kind, hidden, q, kv = c["type"], c["hidden"], c["heads"] * c["head_size"], c["kv_heads"] * c["head_size"]
    norm = lambda name: w.add_tensor(name, rng.uniform(0.6, 1.4, hidden).astype(np.float32))
    matrix(w, rng, "token_embd.weight", kind, len(tokens), hidden, 2.4 / math.sqrt(hidden))
    if not c["tied"]:
        matrix(w, rng, "output.weight", kind, len(tokens), hidden, 2.4 / math.sqrt(hidden))
    norm("output_norm.weight")
    if c.get("rope", {}).get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(c))
    for i in range(c["layers"]):
        b = f"blk.{i}."
        norm(b + "attn_norm.weight")
        norm(b + "ffn_norm.weight")
        for part, rows, columns in (("attn_q", q, hidden), ("attn_k", kv, hidden), ("attn_v", kv, hidden),
                                    ("attn_output", hidden, q),
                                    ("ffn_gate", c["ffn"], hidden), ("ffn_up", c["ffn"], hidden),
                                    ("ffn_down", hidden, c["ffn"])):
            matrix(w, rng, b + part + ".weight", kind, rows, columns, 1.4 / math.sqrt(columns))
            if c["arch"] == "qwen2" and part in ("attn_q", "attn_k", "attn_v"):
                w.add_tensor(b + part + ".bias", rng.normal(0, 0.5, rows).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    torch.set_num_threads(2)
    os.makedirs(os.path.join(HERE, "zoo"), exist_ok=True)
    for old in glob.glob(os.path.join(HERE, "zoo", "*.gguf")):
        os.remove(old)
    results, total = [], 0
    for name, c in ZOO.items():
        path = os.path.join(HERE, "zoo", name + ".gguf")
        write(path, name, c, vocabulary("qwen2" if c["arch"] == "qwen2" else "gpt-2"))
        total += os.path.getsize(path)
        tokenizer = build(*read(path))
        model = load(path, c.get("rope"))
        prompts = []
        for text in ("<|im_start|>user\nHi!<|im_end|>\n", STORY[:160]):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            prompts.append({"text": text, **golden(model, ids, steps=24)})
        results.append({"file": f"zoo/{name}.gguf", "prompts": prompts})
        weights = model.model.layers[0].mlp.up_proj.weight
        print(f"{name}: {os.path.getsize(path)} bytes, weights' deviation {weights.std():.4f}, prompt tokens {[len(p['ids']) for p in prompts]}, "
              f"best {[p['top'][0] for p in prompts]}, 20th {prompts[1]['top'][19]}, least margin {min(prompts[1]['margin'])}")
    with open(os.path.join(HERE, "golden_zoo.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in results) + "\n]\n")
    print(total, "bytes")


if __name__ == "__main__":
    main()
