# SPDX-License-Identifier: MIT
"""KV-cache policies over Hugging Face transformers, float32: the reference for Lathe's perplexity under eviction.

Projections, norms, MLP and logits are transformers'; the attention between them is ours, registered as an attention
function. Position ids are zero, so that transformers rotates nothing, and queries and keys are rotated here: by their
own positions, or by their rank among what a row sees (StreamingLLM's rule, "cache").

What is computed, whichever way: a text is fed token by token. After the step that stored position p the policy evicts
until at most `budget` positions are kept, p included. So row p + 1 sees what was kept and itself: budget + 1 keys.

Two ways, which make_kv_golden.py --check compares with each other:

  Parallel   what is kept doesn't depend on the attention: a mask (n, n). A key is made from what its own row saw and
             never again, so one pass over all rows gives just what step by step gives.
  Stepwise   one row a text at a time, all texts as a batch, the kept keys in slots: for h2o, and as the check of the other.
"""
import numpy as np
import torch
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import repeat_kv

F16, F32, Q8_0 = "f16", "f32", "q8_0"
EVICTION = 7                                                         # LATHE_RANDOM_EVICTION


# ── Masks: (n, n), true where row i sees key j ──

def causal(n):
    return torch.ones(n, n, dtype=torch.bool).tril()


def sinks_mask(n, budget, sinks):
    """The first `sinks` and the newest, `budget` together; the row itself comes on top. sinks = 0: a window."""
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    return causal(n) & ((j < sinks) | (j >= i - (budget - sinks)))


def philox(seed, purpose, stream, counter):
    """lathe_random_u64 of <lathe/random.h>, for an array of counters."""
    m32 = np.uint64(0xffffffff)
    counter = np.asarray(counter, np.uint64)
    c = [counter & m32, np.full_like(counter, stream & 0xffffffff), np.full_like(counter, stream >> 32), np.full_like(counter, purpose)]
    k = [np.uint64(seed & 0xffffffff), np.uint64(seed >> 32)]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ k[0], p1 & m32, (p0 >> np.uint64(32)) ^ c[3] ^ k[1], p0 & m32]
        k = [(k[0] + np.uint64(0x9E3779B9)) & m32, (k[1] + np.uint64(0xBB67AE85)) & m32]
    return c[1] << np.uint64(32) | c[0]


def random_mask(n, budget, request, seed=1):
    """The newest half of the budget and a random choice: each position has a draw of 24 bits, and the lowest goes."""
    recent = (budget + 1) // 2
    draws = (philox(seed, EVICTION, request, np.arange(n)) >> np.uint64(40)).astype(np.int64)
    mask, kept = torch.zeros(n, n, dtype=torch.bool), []
    for i in range(n):
        kept.append(i)
        mask[i, kept] = True
        if len(kept) > budget:
            kept.pop(int(np.argmin(draws[kept[:len(kept) - recent]])))       # of equal ones the lowest position
    return mask


# ── Rotation and storage ──

class Rotation:
    """HF's halves: the pair (i, i + d/2) turns by position × base^(−2i/d)."""
    def __init__(self, config, positions):
        d = config.head_dim
        angle = torch.arange(positions)[:, None].double() * config.rope_parameters["rope_theta"] ** (-2 * torch.arange(d // 2).double() / d)
        self.cos, self.sin = angle.cos().float(), angle.sin().float()

    def __call__(self, x, positions):
        """x: (…, rows, d); positions: rows of them, or of a shape that spreads over x's without the last."""
        c, s = self.cos[positions], self.sin[positions]
        a, b = x.chunk(2, -1)
        return torch.cat((a * c - b * s, b * c + a * s), -1)


def stored(x, dtype, key):
    """What is read back of a vector kept in `dtype`. q8_0: per 32 a half-precision scale, the largest magnitude / 127.
    GGUF has the rotation's pairs side by side, so its 32 aren't ours: keys are put into its order first."""
    if dtype == F32:
        return x
    if dtype == F16:
        return x.half().float()
    d = x.shape[-1]
    if key:
        x = x.unflatten(-1, (2, d // 2)).transpose(-1, -2)
    shape = x.shape
    blocks = x.reshape(*shape[:-2] if key else shape[:-1], d // 32, 32)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    inverse = torch.where(scale > 0, 1 / scale, 0)
    blocks = torch.sign(blocks) * torch.floor((blocks * inverse).abs() + 0.5) * scale.half().float()   # away from zero at ½
    x = blocks.reshape(shape)
    return x.transpose(-1, -2).flatten(-2) if key else x


# ── The attention function: whatever the current policy's object says ──

current = None


def attend(module, query, key, value, attention_mask, scaling=None, **_):
    return current.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register("lathe_kv", attend)


def logits_nll(model, hidden, following):
    """−ln p of each following token: float64 from float32 logits. hidden (rows, width), following (rows)."""
    out = []
    for h, t in zip(hidden.split(128), following.split(128)):
        x = model.lm_head(h).double()
        out.append(torch.logsumexp(x, -1) - x.gather(-1, t[:, None])[:, 0])
    return torch.cat(out)


def rows_forward(model, policy, tokens):
    """tokens (batch, rows) → hidden (batch, rows, width), through the policy's attention."""
    global current
    current = policy
    return model.model(tokens, position_ids=torch.zeros_like(tokens), use_cache=False).last_hidden_state


class Parallel:
    """All rows from `start` on in one pass; those before come from `before`, a pass that saw the same there."""
    def __init__(self, model, mask, sinks=0, positions="original", dtype=F32, start=0, before=None, block=128):
        self.mask, self.sinks, self.cache, self.dtype, self.start, self.before, self.block = (
            mask, sinks, positions == "cache", dtype, start, before, block)
        self.rotate = Rotation(model.config, mask.shape[0])
        self.keys, self.values, self.model = [], [], model

    def attend(self, layer, query, key, value, scaling):
        if self.start:
            key = torch.cat((self.before.keys[layer][:, :, :self.start], key), 2)
            value = torch.cat((self.before.values[layer][:, :, :self.start], value), 2)
        self.keys.append(key)
        self.values.append(value)
        n, groups = key.shape[2], query.shape[1] // key.shape[1]
        turned = repeat_kv(stored(self.rotate(key, torch.arange(n)), self.dtype, True), groups)
        value = repeat_kv(stored(value, self.dtype, False), groups)
        out = torch.empty_like(query)
        for first in range(self.start, n, self.block):
            rows = torch.arange(first, min(first + self.block, n))
            mask = self.mask[rows]
            seen = mask.any(0).nonzero()[:, 0]                       # keys that any of these rows sees
            q = query[:, :, rows - self.start]
            scores = self.rotate(q, rows) @ turned[:, :, seen].transpose(2, 3)
            if self.cache and self.sinks:
                # The window's ranks are as far apart as its positions; a sink's rank is its position, the row's is what it sees less 1.
                far = self.rotate(q, mask.sum(1) - 1) @ turned[:, :, :self.sinks].transpose(2, 3)
                scores[..., :self.sinks] = far
            scores = (scores * scaling).masked_fill(~mask[:, seen], -torch.inf)
            out[:, :, rows - self.start] = scores.softmax(-1) @ value[:, :, seen]
        return out.transpose(1, 2)

    def run(self, ids):
        """→ −ln p of ids[1:]."""
        self.keys, self.values = [], []
        hidden = rows_forward(self.model, self, ids[None, self.start:])[0]
        self.nll = logits_nll(self.model, hidden[:-1], ids[self.start + 1:])
        if self.start:
            self.nll = torch.cat((self.before.nll[:self.start], self.nll))
        return self.nll


class Stepwise:
    """Row after row of a batch of texts; each text has budget + 1 slots for every layer and KV head.

    choose(policy, position) → the slot to give up, (layers, batch, kv_heads), asked once budget + 1 positions are stored.
    `mass` has what each slot's key was given so far, summed over the KV head's query heads and over rows."""
    def __init__(self, model, batch, budget, choose, positions="original"):
        c = model.config
        self.model, self.budget, self.choose, self.cache = model, budget, choose, positions == "cache"
        shape = (c.num_hidden_layers, batch, c.num_key_value_heads, budget + 1)
        self.keys, self.values = torch.zeros(*shape, c.head_dim), torch.zeros(*shape, c.head_dim)
        self.mass, self.position = torch.zeros(shape), torch.full(shape, -1)
        self.free = torch.zeros(shape[:3], dtype=torch.long)         # the slot that the next position goes to

    def attend(self, layer, query, key, value, scaling):
        b, heads, _, d = query.shape
        kv, at = key.shape[1], self.free[layer][..., None]
        self.position[layer].scatter_(-1, at, self.now)
        self.mass[layer].scatter_(-1, at, 0.0)
        wide = at[..., None].expand(-1, -1, 1, d)
        self.keys[layer].scatter_(2, wide, key if self.cache else self.rotate(key, torch.tensor([self.now])))
        self.values[layer].scatter_(2, wide, value)
        filled = min(self.now + 1, self.budget + 1)
        keys, position = self.keys[layer][:, :, :filled], self.position[layer][:, :, :filled]
        if self.cache:
            keys = self.rotate(keys, position.argsort(-1).argsort(-1))
            query = self.rotate(query, torch.tensor([filled - 1]))
        else:
            query = self.rotate(query, torch.tensor([self.now]))
        weights = ((query.view(b, kv, heads // kv, d) @ keys.transpose(2, 3)) * scaling).softmax(-1)
        self.mass[layer][:, :, :filled] += weights.sum(2)
        return (weights @ self.values[layer][:, :, :filled]).view(b, 1, heads, d)

    def run(self, ids, told=None):
        """ids (batch, n) → −ln p of ids[:, 1:], (batch, n − 1)."""
        n, out = ids.shape[1], []
        self.rotate = Rotation(self.model.config, n)
        for self.now in range(n - 1):
            hidden = rows_forward(self.model, self, ids[:, self.now:self.now + 1])[:, 0]
            out.append(logits_nll(self.model, hidden, ids[:, self.now + 1]))
            if self.now < self.budget:
                self.free += 1
            else:
                self.free = self.choose(self, self.now)
            if told and self.now % 128 == 127:
                told(self.now + 1)
        return torch.stack(out, 1)


def h2o(scopes, recent):
    """Gives up, among all but the `recent` newest, the key with the least mass. scopes: of each text of the batch."""
    layer = torch.tensor([s == "layer" for s in scopes])
    request = torch.tensor([s == "request" for s in scopes])

    def choose(policy, now):
        mass = policy.mass.double()                                  # (layers, batch, kv_heads, slots)
        by_layer = mass.sum(2, keepdim=True).expand_as(mass)
        mass = torch.where(request[None, :, None, None], by_layer.sum(0, keepdim=True).expand_as(mass),
                           torch.where(layer[None, :, None, None], by_layer, mass))
        return mass.masked_fill(policy.position > now - recent, torch.inf).argmin(-1)
    return choose


def sinks_choose(sinks, budget):
    """What sinks_mask says, step by step: the oldest that is no sink goes."""
    return lambda policy, now: policy.position.masked_fill(policy.position < sinks, now + 1).argmin(-1)
