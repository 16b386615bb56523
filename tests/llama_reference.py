#!/usr/bin/env python3
"""Evaluates a GGUF file of architecture llama in NumPy, as plainly as it can be said, and prints
the rows of tests/real_model.c: the tokens of some texts, and the five likeliest tokens after each.

A development script: neither the build nor a test runs it. It needs NumPy, and the Python package
tokenizers for the tokens. It knows nothing of griffin.h: it reads the file as llama.cpp wrote it,
where the rows of q and k are permuted so that a rotary pair is two neighbours, and it computes in
float64 from the numbers in the file, so that what it prints is right to all digits shown.

    python3 tests/llama_reference.py MODEL.gguf
"""

import json
import struct
import sys

import numpy as np
from tokenizers import Tokenizer

TEXTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Der Turm ist 324 m hoch; gebaut wurde er 1889 von",
    "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
    "A lighthouse is a tower that shows a light to ships at sea. " * 12 + "The light of a",
]

# ---- the file ----------------------------------------------------------------------------------

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
           12: "d"}

class File:
    """The metadata of a GGUF file, and its tensors as float64."""

    def __init__(self, path):
        self.data = open(path, "rb").read()
        self.at = 4
        version, tensors, keys = self.take("<IQQ")
        assert self.data[:4] == b"GGUF" and version == 3
        self.keys = {}
        for _ in range(keys):
            name = self.text()
            self.keys[name] = self.value(self.take("<I")[0])
        self.tensors = {}
        for _ in range(tensors):
            name, rank = self.text(), self.take("<I")[0]
            shape = self.take("<%dQ" % rank)[::-1]
            self.tensors[name] = (shape,) + self.take("<IQ")
        step = self.keys.get("general.alignment", 32)
        self.start = (self.at + step - 1) // step * step

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        n = self.take("<Q")[0]
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8: return self.text()
        if kind != 9: return self.take("<" + SCALARS[kind])[0]
        kind, n = self.take("<IQ")
        return [self.value(kind) for _ in range(n)]

    def tensor(self, name):
        shape, kind, offset = self.tensors[name]
        n, at = int(np.prod(shape)), self.start + offset
        def half(block): return block.copy().view(np.float16).astype(np.float64)
        if kind == 0:
            return np.frombuffer(self.data, np.float32, n, at).astype(np.float64).reshape(shape)
        size = {3: 20, 8: 34}[kind]         # Q4_1: scale, least, 32 nibbles; Q8_0: scale, 32 bytes
        b = np.frombuffer(self.data, np.uint8, n // 32 * size, at).reshape(-1, size)
        if kind == 8: x = half(b[:, :2]) * b[:, 2:].copy().view(np.int8)
        else: x = (half(b[:, :2]) * np.concatenate([b[:, 4:] & 15, b[:, 4:] >> 4], 1)
                   + half(b[:, 2:4]))
        return x.reshape(shape)

# ---- the network -------------------------------------------------------------------------------

def norm(x, gain, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * gain

def rotate(x, base):
    """x [tokens, heads, dims]: pair i of neighbours turns by position * base^(-2i / dims)."""
    dims = x.shape[-1]
    angle = np.arange(len(x))[:, None] * base ** (-np.arange(0, dims, 2) / dims)
    sin, cos = np.sin(angle)[:, None, :], np.cos(angle)[:, None, :]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out

def attend(q, k, v):
    """q [tokens, heads, dims]; k and v [tokens, groups, dims], each for heads / groups heads."""
    heads, groups = q.shape[1], k.shape[1]
    k, v = np.repeat(k, heads // groups, 1), np.repeat(v, heads // groups, 1)
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[-1])
    scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("hij,jhd->ihd", p / p.sum(-1, keepdims=True), v).reshape(len(q), -1)

class Llama:
    def __init__(self, f):
        def key(name): return f.keys["llama." + name]
        self.heads, self.groups = key("attention.head_count"), key("attention.head_count_kv")
        self.eps, self.base = key("attention.layer_norm_rms_epsilon"), key("rope.freq_base")
        self.layers = key("block_count")
        self.w = {n: f.tensor(n) for n in f.tensors}

    def logits(self, tokens):
        w = self.w
        h = w["token_embd.weight"][tokens]
        for i in range(self.layers):
            def m(name, x): return x @ w["blk.%d.%s.weight" % (i, name)].T
            x = norm(h, w["blk.%d.attn_norm.weight" % i], self.eps)
            q, k, v = (m("attn_" + n, x).reshape(len(x), g, -1)
                       for n, g in (("q", self.heads), ("k", self.groups), ("v", self.groups)))
            h = h + m("attn_output", attend(rotate(q, self.base), rotate(k, self.base), v))
            x = norm(h, w["blk.%d.ffn_norm.weight" % i], self.eps)
            gate = m("ffn_gate", x)
            h = h + m("ffn_down", gate / (1 + np.exp(-gate)) * m("ffn_up", x))
        last = norm(h[-1], w["output_norm.weight"], self.eps)
        return w.get("output.weight", w["token_embd.weight"]) @ last

# ---- the tokens --------------------------------------------------------------------------------

def tokenizer(f):
    """The tokenizer.json that SmolLM2 came with, from what is left of it in the file."""
    pieces, kinds = f.keys["tokenizer.ggml.tokens"], f.keys["tokenizer.ggml.token_type"]
    assert f.keys["tokenizer.ggml.pre"] == "smollm"
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}
    return Tokenizer.from_str(json.dumps({
        "version": "1.0",
        "added_tokens": [{"id": i, "content": p, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for i, (p, k) in enumerate(zip(pieces, kinds)) if k == 3],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers":
                          [{"type": "Digits", "individual_digits": True}, level]},
        "decoder": level,
        "model": {"type": "BPE", "vocab": {p: i for i, p in enumerate(pieces)},
                  "merges": f.keys["tokenizer.ggml.merges"]}}))

def main():
    f = File(sys.argv[1])
    model, words = Llama(f), tokenizer(f)
    for text in TEXTS:
        tokens = words.encode(text, add_special_tokens=False).ids
        x = model.logits(tokens)
        best = np.argsort(-x)[:5]
        print("%r\n    %d, {%s}," % (text, len(tokens), ", ".join(map(str, tokens[-4:]))))
        print("    {%s}, {%s}" % (", ".join("%d" % i for i in best),
                                  ", ".join("%.4f" % x[i] for i in best)),
              [words.decode([i]) for i in best])

if __name__ == "__main__":
    main()
