# SPDX-License-Identifier: MIT
"""Golden token ids from Hugging Face `tokenizers`, for the BPE tokenizer.

The oracle is built from the vocabulary and merges that a GGUF carries, and from the pre-tokenizer that the model's own
tokenizer.json declares, named in the GGUF by tokenizer.ggml.pre:

  smollm     Digits(individual) then GPT-2's regex on each part     no normalizer   merges only
  gpt-2      GPT-2's regex                                          no normalizer   merges only
  llama-bpe  Llama 3's regex                                        no normalizer   a piece that is a token is taken whole
  qwen2      Qwen 2's regex                                         NFC             merges only

smollm's vocabulary is the real model's, which is not in the tree: --model says where it lies. The other three are our own
(`--train`: 2,000 merges learnt from Python's standard library and texts.py), stored as GGUFs without tensors, so that the
goldens can be made again without training. Special tokens: token_type 3 (control) is parsed only where the line says
"special": true; token_type 4 (user defined) is parsed always.

Bytes that are not UTF-8 are decoded as Python's errors="replace" does: one U+FFFD for each maximal subpart.

  python make_tokenizer_golden.py --model models/smollm2-135m.gguf [--train]
"""
import argparse
import base64
import glob
import json
import os
import sys

from gguf import GGUFReader, GGUFWriter, TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from strings import PIECES, generate, special_strings
from texts import CODE, PASSAGES, STORY

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20240229
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL
CONTROL, USER = int(TokenType.CONTROL), int(TokenType.USER_DEFINED)
OWN = {                                                       # pre: (bos, eos, [(special token, its type)])
    "gpt-2": ("<|endoftext|>", "<|endoftext|>", [("<|endoftext|>", CONTROL)]),
    "llama-bpe": ("<|begin_of_text|>", "<|eot_id|>", [(t, CONTROL) for t in (
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")]),
    "qwen2": ("<|endoftext|>", "<|im_end|>", [(t, CONTROL) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
              + [("<tool_call>", USER), ("</tool_call>", USER)]),
}
# Tokens that no merge reaches: only a tokenizer that looks a whole piece up (llama-bpe) may use them.
UNREACHABLE = ["Ġlathework", "Zxqv", "ĠÃ±andÃº"]


def pre_tokenizer(pre):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre in ("smollm", "gpt-2"))
    if pre == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if pre == "gpt-2":
        return byte_level
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3 if pre == "llama-bpe" else QWEN2), "isolated"),
                                    byte_level])


def build(pre, tokens, types, merges):
    model = models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges],
                       ignore_merges=pre == "llama-bpe")
    tokenizer = Tokenizer(model)                              # no unk_token: a byte without a token vanishes, see README.md
    tokenizer.pre_tokenizer = pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    for t, kind in zip(tokens, types):
        if kind in (CONTROL, USER):
            tokenizer.add_tokens([AddedToken(t, special=kind == CONTROL, normalized=False)])
    assert tokenizer.get_vocab_size() == len(tokens)
    return tokenizer


def read(path):
    fields = GGUFReader(path).fields
    assert fields["tokenizer.ggml.model"].contents() == "gpt2"
    return [fields["tokenizer.ggml." + k].contents() for k in ("pre", "tokens", "token_type", "merges")]


def train(pre, path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(pre)
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    library = os.path.dirname(os.__file__)
    corpus = [open(f, encoding="utf-8", errors="replace").read() for f in sorted(glob.glob(library + "/[a-d]*.py"))]
    corpus += (list(PASSAGES.values()) + list(CODE.values()) + [STORY, " ".join(PIECES)]) * 12
    trainer = trainers.BpeTrainer(vocab_size=256 + 2000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    merges = [" ".join(m) for m in state["merges"]]
    bos, eos, special = OWN[pre]
    tokens = sorted(state["vocab"], key=state["vocab"].get) + UNREACHABLE + [t for t, _ in special]
    assert len(set(tokens)) == len(tokens)
    types = [int(TokenType.NORMAL)] * (len(tokens) - len(special)) + [kind for _, kind in special]

    writer = GGUFWriter(path, "llama")
    writer.add_name(f"vocabulary of 2000 merges, pre-tokenizer {pre}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(bos))
    writer.add_eos_token_id(tokens.index(eos))
    writer.add_add_bos_token(pre == "llama-bpe")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def record(path, tokenizer, cases):
    """One JSON line a case: c category, b base64 of the bytes, ids, special, rt (decoding gives the same bytes back), and,
    where no special token is in play, p: the lengths in bytes of the pre-tokenizer's pieces (after normalization)."""
    with open(path, "w") as f:
        for category, text, special in cases:
            tokenizer.encode_special_tokens = not special     # the library's name for "treat them as text"
            string = text.decode("utf-8", errors="replace")
            ids = tokenizer.encode(string, add_special_tokens=False).ids
            rt = tokenizer.decode(ids, skip_special_tokens=False).encode() == text
            line = {"c": category, "b": base64.b64encode(text).decode(), "ids": ids, "special": special, "rt": rt}
            if category != "special" and len(text) < 400:
                normalized = tokenizer.normalizer.normalize_str(string) if tokenizer.normalizer else string
                line["p"] = [len(piece) for piece,
                             _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized)]   # a letter of the byte alphabet each
            f.write(json.dumps(line, separators=(",", ":")) + "\n")
    print(f"{os.path.basename(path)}: {len(cases)} cases, {os.path.getsize(path) / 1e3:.0f} kB", file=sys.stderr)


def cases_for(tokens, types, strings):
    plain = [(c, s, True) for c, s in strings]
    special = special_strings(SEED, [t for t, k in zip(tokens, types) if k in (CONTROL, USER)])
    return plain + [(c, s, way) for c, s in special for way in (True, False)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="the SmolLM2 GGUF")
    parser.add_argument("--train", action="store_true", help="learn the three small vocabularies again")
    args = parser.parse_args()

    strings = generate(SEED)
    pre, tokens, types, merges = read(args.model)
    assert pre == "smollm"
    record(os.path.join(HERE, "golden_tokenizer_smollm.jsonl"), build(pre, tokens, types, merges),
           cases_for(tokens, types, strings))

    short = [(c, s) for c, s in strings if len(s) < 400 and c != "control"]
    by_category = {}
    for c, s in short:
        by_category.setdefault(c, []).append((c, s))
    sample = [x for group in by_category.values() for x in group[::max(1, len(group) // 48)][:50]]
    sample += [("unreachable", s) for s in (b"a lathework", b"Zxqv", " ñandú, lathework Zxqv".encode(),
                                            b"Zxqv's lathe work")]
    for pre in OWN:
        path = os.path.join(HERE, f"vocab_{pre}.gguf")
        if args.train:
            train(pre, path)
        _, tokens, types, merges = read(path)
        record(os.path.join(HERE, f"golden_tokenizer_{pre}.jsonl"), build(pre, tokens, types, merges),
               cases_for(tokens, types, sample))


if __name__ == "__main__":
    main()
