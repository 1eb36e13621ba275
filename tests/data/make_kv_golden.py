# SPDX-License-Identifier: MIT
"""Golden perplexities of texts/*.txt under each KV-cache policy: the first 2,048 tokens, teacher forced, evicting step by
step as in decoding. SmolLM2-135M-Instruct, the GGUF's own weights, float32 (kv_reference.py says how, and what is meant).

  python make_kv_golden.py --model models/smollm2-135m.gguf                    # everything; hours on two cores
  python make_kv_golden.py --model … --parts gate,h2o --texts emma,ruth        # only these; the others stay as they are
  python make_kv_golden.py --model … --check                                   # both ways of computing agree

The request's number k in the run, which random draws by, is the text's place among all by name, from 1.

golden_kv.json: {"tokens", "every", "texts": {text: {"ids": crc32, "nll": {policy: [after 256, 512, … 2048 tokens]}}}}; a sum is
of −ln p of tokens 1 … k − 1, in nats. A policy's name: full, f16, q8_0, window/256, sinks/4/256/cache, random/256, h2o/head/256 …
golden_kv_short.json: the same of the first 160 tokens of three texts, with a budget of 48: for tests that shall be quick.
"""
import argparse
import json
import os
import time
import zlib

import numpy as np
import torch

import kv_reference as kv
from make_model_golden import load
from make_tokenizer_golden import build, read

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS, EVERY = 2048, 256
SINKS, BUDGETS = (0, 1, 2, 4, 8), (64, 128, 256, 512, 1024)
FEW = ("emma", "opticks", "the_weir")                        # the texts of the large table
GOLDEN = os.path.join(HERE, "golden_kv.json")


def sinks_name(sinks, budget, positions):
    return f"sinks/{sinks}/{budget}/{positions}" if sinks else f"window/{budget}"


def parallel_policies(parts, text, request):
    """name → arguments of Parallel, of one text."""
    out = {}
    table = [(s, b) for s in SINKS for b in BUDGETS] if "table" in parts and text in FEW else []
    for sinks, budget in ([(0, 256), (4, 256)] if "gate" in parts else []) + table:
        for positions in ("original", "cache") if sinks else ("original",):
            out[sinks_name(sinks, budget, positions)] = dict(mask=kv.sinks_mask(TOKENS, budget, sinks), sinks=sinks,
                                                             positions=positions, budget=budget)
    if "dtype" in parts:
        out["random/256"] = dict(mask=kv.random_mask(TOKENS, 256, request), budget=256)
        for dtype in (kv.F16, kv.Q8_0):
            out[dtype] = dict(mask=kv.causal(TOKENS), dtype=dtype, budget=0)
    return out


def sums(nll):
    total = np.cumsum(nll.numpy())
    return [round(float(total[k - 2]), 5) for k in range(EVERY, TOKENS + 1, EVERY)]


def save(golden):
    """One line a policy; written after each, so that what was computed is kept."""
    if os.path.exists(GOLDEN):                               # another process may have come further with other parts
        with open(GOLDEN) as f:
            for name, text in json.load(f)["texts"].items():
                mine = golden["texts"].setdefault(name, text)
                if mine["ids"] == text["ids"]:
                    for policy, nll in text["nll"].items():
                        mine["nll"].setdefault(policy, nll)
    lines = []
    for name, text in sorted(golden["texts"].items()):
        policies = ",\n    ".join(f"{json.dumps(p)}: {json.dumps(v)}" for p, v in sorted(text["nll"].items()))
        lines.append(f'  "{name}": {{"ids": {text["ids"]}, "nll": {{\n    {policies}}}}}')
    with open(GOLDEN + ".new", "w") as f:
        f.write(f'{{"model": "smollm2-135m", "tokens": {TOKENS}, "every": {EVERY}, "texts": {{\n' + ",\n".join(lines) + "\n}}\n")
    os.replace(GOLDEN + ".new", GOLDEN)


def check(model, texts):
    """Parallel against Stepwise, and Parallel without eviction against transformers' own attention."""
    ids = torch.stack([torch.tensor(t[:200]) for t in list(texts.values())[:2]])
    model.set_attn_implementation("eager")
    own = model(ids, use_cache=False).logits.double().log_softmax(-1)
    own = -own[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    model.set_attn_implementation("lathe_kv")
    plain = [kv.Parallel(model, kv.causal(200)) for _ in ids]
    full = torch.stack([p.run(i) for p, i in zip(plain, ids)])
    print(f"full: within {(full - own).abs().max():.1e} of transformers' own attention")
    assert (full - own).abs().max() < 2e-4
    for sinks, budget, positions in ((0, 32, "original"), (4, 32, "original"), (4, 32, "cache"), (1, 63, "cache"), (4, 300, "cache")):
        mask = kv.sinks_mask(200, budget, sinks)
        start = min(budget + 1, 150)
        at_once = torch.stack([kv.Parallel(model, mask, sinks, positions, start=start, before=p).run(i) for p, i in zip(plain, ids)])
        stepwise = kv.Stepwise(model, 2, budget, kv.sinks_choose(sinks, budget), positions).run(ids)
        print(f"{sinks_name(sinks, budget, positions)}: within {(at_once - stepwise).abs().max():.1e} step by step, "
              f"{at_once.sum() / full.sum():.3f} × full")
        assert (at_once - stepwise).abs().max() < 1e-3


def gate_and_table(model, texts, golden, parts, requests):
    for name, ids in texts.items():
        started, plain = time.time(), kv.Parallel(model, kv.causal(TOKENS))
        ids = torch.tensor(ids)
        nll = golden["texts"][name]["nll"]
        nll["full"] = sums(plain.run(ids))
        for policy, how in parallel_policies(parts, name, requests[name]).items():
            if policy not in nll:
                budget = how.pop("budget")
                start = budget + 1 if budget else 0
                nll[policy] = sums(kv.Parallel(model, **how, start=start, before=plain).run(ids))
                save(golden)
        save(golden)
        print(f"{name} ({time.time() - started:.0f} s): perplexity of full {np.exp(nll['full'][-1] / (TOKENS - 1)):.3f}, " +
              ", ".join(f"{p} × {np.exp((v[-1] - nll['full'][-1]) / (TOKENS - 1)):.4f}" for p, v in sorted(nll.items()) if p != "full"), flush=True)


def stepwise_h2o(model, texts, golden, budget, scopes):
    """All texts and scopes as one batch."""
    rows = [(name, scope) for scope in scopes for name in texts if f"h2o/{scope}/{budget}" not in golden["texts"][name]["nll"]]
    if not rows:
        return
    ids = torch.stack([torch.tensor(texts[name]) for name, _ in rows])
    started = time.time()
    policy = kv.Stepwise(model, len(rows), budget, kv.h2o([scope for _, scope in rows], budget // 2))
    nll = policy.run(ids, lambda n: print(f"  h2o/{budget}: {n} positions, {time.time() - started:.0f} s", flush=True))
    for (name, scope), row in zip(rows, nll):
        golden["texts"][name]["nll"][f"h2o/{scope}/{budget}"] = sums(row)
    save(golden)


def short(model, texts):
    """golden_kv_short.json."""
    tokens, budget, out = 160, 48, {}
    ids = torch.stack([torch.tensor(texts[name][:tokens]) for name in FEW])
    for k, name in enumerate(FEW):
        full = kv.causal(tokens)
        of = {"full": dict(mask=full), "f16": dict(mask=full, dtype=kv.F16), "q8_0": dict(mask=full, dtype=kv.Q8_0),
              f"random/{budget}": dict(mask=kv.random_mask(tokens, budget, k + 1))}
        for sinks in (0, 4):
            for positions in ("original", "cache") if sinks else ("original",):
                of[sinks_name(sinks, budget, positions)] = dict(mask=kv.sinks_mask(tokens, budget, sinks), sinks=sinks, positions=positions)
        out[name] = {p: round(float(kv.Parallel(model, **how).run(ids[k]).sum()), 5) for p, how in of.items()}
    for scope in ("request", "layer", "head"):
        nll = kv.Stepwise(model, len(FEW), budget, kv.h2o([scope] * len(FEW), budget // 2)).run(ids)
        for name, row in zip(FEW, nll):
            out[name][f"h2o/{scope}/{budget}"] = round(float(row.sum()), 5)
    with open(os.path.join(HERE, "golden_kv_short.json"), "w") as f:
        f.write(f'{{"tokens": {tokens}, "budget": {budget}, "texts": {{\n' +
                ",\n".join(f'  "{name}": {json.dumps(v)}' for name, v in out.items()) + "\n}}\n")
    print(out)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="the SmolLM2 GGUF")
    parser.add_argument("--parts", default="gate,dtype,h2o,table,short", help="gate, dtype (and random), h2o, table, short")
    parser.add_argument("--texts", help="only these, by name")
    parser.add_argument("--check", action="store_true", help="compare the two ways of computing, and write nothing")
    parser.add_argument("--threads", type=int, default=2, help="1 where others compute, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    parts = args.parts.split(",")

    tokenizer = build(*read(args.model))
    texts, requests = {}, {}
    for file in sorted(os.listdir(os.path.join(HERE, "texts"))):
        name, kind = os.path.splitext(file)
        if kind != ".txt":
            continue
        requests[name] = len(requests) + 1
        if not args.texts or name in args.texts.split(","):
            with open(os.path.join(HERE, "texts", file), encoding="utf8") as f:
                texts[name] = tokenizer.encode(f.read(), add_special_tokens=False).ids[:TOKENS]
            assert len(texts[name]) == TOKENS, (name, len(texts[name]))
    model = load(args.model)
    if args.check:
        check(model, texts)
        return
    model.set_attn_implementation("lathe_kv")
    golden = {"texts": {}}
    if os.path.exists(GOLDEN):
        with open(GOLDEN) as f:
            golden = json.load(f)
    for name, ids in texts.items():
        crc = zlib.crc32(np.array(ids, "<i4").tobytes())
        if golden["texts"].get(name, {}).get("ids") != crc:      # another text than before: nothing of it holds
            golden["texts"][name] = {"ids": crc, "nll": {}}
    if set(parts) & {"gate", "dtype", "table"}:
        gate_and_table(model, texts, golden, parts, requests)
    if "short" in parts:
        short(model, texts)
    if "h2o" in parts:
        stepwise_h2o(model, texts, golden, 256, ("head", "layer", "request"))


if __name__ == "__main__":
    main()
