# SPDX-License-Identifier: MIT
"""Golden logits and attention of SmolLM2-135M-Instruct, from Hugging Face transformers in float32.

The weights are those of the GGUF (Q4_1, embedding Q8_0), dequantized by the `gguf` package: so the reference has the
model's rounding of weights, and no other. An engine that keeps float32 activations should agree to about 1e-4 in
log-probability; one that quantizes activations must state its own tolerance.

llama.cpp's converter reorders the rows of q and k in arch "llama", within each head: HF's rotary embedding turns the pair
(i, i + d/2), GGUF's turns (2i, 2i + 1). So row 2i of a head in the GGUF is row i of HF's, row 2i + 1 is row i + d/2;
unpermute() undoes it. The model writes sense only when this is right, which the last prompt's text shows.

  python make_model_golden.py --model models/smollm2-135m.gguf
"""
import argparse
import json
import os
import struct

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from make_tokenizer_golden import build, read
from texts import CODE, PASSAGES, STORY

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def unpermute(w, heads):
    """(heads * d, n), rows in pairs (2i, 2i + 1) → rows in halves (i, i + d/2)."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def load(path, rope=None):
    """GGUF of arch llama or qwen2 → transformers' model, float32, eager attention. rope: its rope_parameters beyond the base."""
    reader = GGUFReader(path)
    arch = reader.fields["general.architecture"].contents()
    key = lambda name: reader.fields[f"{arch}.{name}"].contents()
    heads, kv_heads = key("attention.head_count"), key("attention.head_count_kv")
    own_size = f"{arch}.attention.key_length" in reader.fields
    state = {}
    for t in reader.tensors:
        w = dequantize(t.data, t.tensor_type).astype(np.float32)
        parts = t.name.split(".")
        if parts[0] == "blk":
            if arch == "llama" and parts[2] in ("attn_q", "attn_k"):
                w = unpermute(w, heads if parts[2] == "attn_q" else kv_heads)
            name = f"model.layers.{parts[1]}.{NAMES[parts[2]]}.{parts[3]}"
        elif parts[0] == "rope_freqs":                       # the same numbers come by way of `rope`, from their definition
            continue
        else:
            name = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}[parts[0]] + "." + parts[1]
        state[name] = torch.from_numpy(np.ascontiguousarray(w))
    tied = "lm_head.weight" not in state
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    make_config, make_model = (LlamaConfig, LlamaForCausalLM) if arch == "llama" else (Qwen2Config, Qwen2ForCausalLM)
    config = make_config(
        vocab_size=state["model.embed_tokens.weight"].shape[0], hidden_size=key("embedding_length"),
        intermediate_size=key("feed_forward_length"), num_hidden_layers=key("block_count"),
        num_attention_heads=heads, num_key_value_heads=kv_heads,
        head_dim=key("attention.key_length") if own_size else key("embedding_length") // heads,
        max_position_embeddings=key("context_length"), rms_norm_eps=key("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": key("rope.freq_base"), **(rope or {})},
        tie_word_embeddings=tied, attn_implementation="eager")
    model = make_model(config).eval()
    model.load_state_dict(state, strict=True)
    assert model.dtype == torch.float32
    return model


def log_softmax(logits):
    """In float64, from float32 logits."""
    x = logits.double()
    return x - torch.logsumexp(x, -1, keepdim=True)


def top(logits, k=20):
    lp = log_softmax(logits)
    best = torch.sort(lp, descending=True, stable=True)     # equal values: the lower id first
    return [[int(i), round(float(v), 6)] for i, v in zip(best.indices[:k], best.values[:k])]


@torch.inference_mode()
def golden(model, ids, steps=64):
    out = model(torch.tensor([ids]), use_cache=True)
    lp = log_softmax(out.logits[0])
    nll = -sum(float(lp[p - 1, ids[p]]) for p in range(1, len(ids)))
    continuation, margins, cache, logits = [], [], out.past_key_values, out.logits[0, -1]
    for _ in range(steps):                                  # never stops at an end token
        two = torch.topk(logits, 2).values
        continuation.append(int(logits.argmax()))
        margins.append(round(float(two[0] - two[1]), 5))
        step = model(torch.tensor([[continuation[-1]]]), past_key_values=cache, use_cache=True)
        cache, logits = step.past_key_values, step.logits[0, -1]
    return {"ids": ids, "nll": round(nll, 6), "top": top(out.logits[0, -1]), "greedy": continuation, "margin": margins}


def write_attention(path, weights, rows):
    """weights: (layers, heads, n, n) after softmax. rows: the query positions to keep. Layout in README.md."""
    layers, heads, n, _ = weights.shape
    with open(path, "wb") as f:
        f.write(struct.pack("<8s6I", b"LATHEATT", 1, layers, heads, n, len(rows), 0))
        f.write(np.array(rows, "<u4").tobytes())
        for layer in range(layers):
            for head in range(heads):
                for q in rows:
                    f.write(weights[layer, head, q, :q + 1].numpy().astype("<f4").tobytes())


def prompts(encode):
    """name → ids; each is cut to its number of tokens."""
    chat = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    ask = lambda text: "<|im_start|>user\n" + text + "<|im_end|>\n<|im_start|>assistant\n"
    every = "\n".join(PASSAGES.values())
    code = "".join("// " + name + "\n" + text + "\n" for name, text in CODE.items())
    texts = [("one token", "The", 1), ("two tokens", "Once upon", 2), ("five tokens", "The capital of France is", 5),
             ("chat, no system", ask("What is the capital of France?"), None), ("code", code, 40),
             ("chat", chat + ask("Name three primary colours, please."), None),
             ("many languages", every, 128), ("english", STORY, 250), ("code and languages", code + every, 400),
             ("chat about a story", chat + "<|im_start|>user\n" + STORY, 590)]
    out = {}
    for name, text, n in texts:
        ids = encode(text)
        assert n is None or len(ids) >= n, (name, len(ids))
        out[name] = ids[:n]
    out["chat about a story"] += encode("<|im_end|>\n<|im_start|>assistant\n")
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="the SmolLM2 GGUF")
    args = parser.parse_args()
    torch.set_num_threads(2)

    tokenizer = build(*read(args.model))
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    model = load(args.model)

    results = []
    for name, ids in prompts(encode).items():
        results.append({"name": name, **golden(model, ids)})
        text = tokenizer.decode(results[-1]["greedy"], skip_special_tokens=False)
        print(f"{name}: {len(ids)} tokens, nll {results[-1]['nll']:.3f}, least margin {min(results[-1]['margin'])}: {text[:150]!r}")
    with open(os.path.join(HERE, "golden_logits.json"), "w") as f:
        f.write('{"model": "smollm2-135m", "prompts": [\n' + ",\n".join(
            json.dumps(r, separators=(",", ":")) for r in results) + "\n]}\n")

    with torch.inference_mode():
        for name, n, rows in (("short", 24, list(range(24))), ("long", 200, [0, 1, 2, 15, 16, 63, 64, 100, 150, 199])):
            ids = encode(STORY)[:n]
            weights = torch.cat(model(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions)
            write_attention(os.path.join(HERE, f"golden_attention_{name}.bin"), weights, rows)
            with open(os.path.join(HERE, f"golden_attention_{name}.json"), "w") as f:
                json.dump({"ids": ids, "rows": rows, "layers": weights.shape[0], "heads": weights.shape[1],
                           "dtype": "float32"}, f)


if __name__ == "__main__":
    main()
