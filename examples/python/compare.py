"""compare.py - griffin.h against a Griffin of a hundred lines of NumPy, which reads the same file.

    make shared build/griffin
    build/griffin convert examples/models/storyteller.gguf build/f32.gguf --type f32
    python3 examples/python/compare.py build/f32.gguf

NumPy has float64 here and the library float32, so logits agree to about 1e-6 of their size. A file
with other types of weights is refused: the library also rounds activations there. Cells begin with
`# %%`, as notebooks have them. The letters are those of the paper, arXiv 2402.19427.
"""

# %% the library's side
import struct
import sys

import numpy as np

import griffin

path = sys.argv[1] if len(sys.argv) > 1 else "build/f32.gguf"
text = sys.argv[2] if len(sys.argv) > 2 else (
    "Once upon a time there was a dog named Tom. He lived in a small house near the forest with "
    "his old friend, a grey cat, and every morning the two of them went out to look for food.")


# %% a GGUF file: {key: value} and {tensor: array}
def read_gguf(path):
    data, at = open(path, "rb").read(), 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def take_text():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n:at].decode("utf-8", "replace")

    def take_value(kind):
        if kind == 8:
            return take_text()
        if kind == 9:
            kind, n = take("IQ")
            return [take_value(kind) for _ in range(n)]
        return take("BbHhIif?__QqdL"[kind])

    magic, _, n_tensors, n_pairs = take("4sIQQ")
    if magic != b"GGUF":
        sys.exit(path + ": not a GGUF file")
    pairs = {}
    for _ in range(n_pairs):
        key = take_text()
        pairs[key] = take_value(take("I"))
    found = []
    for _ in range(n_tensors):
        name, rank = take_text(), take("I")
        shape = [take("Q") for _ in range(rank)][::-1]
        found.append((name, shape, *take("IQ")))
    align = pairs.get("general.alignment", 32)
    start = (at + align - 1) // align * align
    tensors = {}
    for name, shape, kind, offset in found:
        if kind != 0:
            sys.exit("%s: %s is not f32; griffin convert --type f32 makes it so" % (path, name))
        a = np.frombuffer(data, "<f4", int(np.prod(shape)), start + offset)
        tensors[name] = a.reshape(shape).astype(np.float64)
    return pairs, tensors


# %% the network
class Griffin:
    """One text, token by token: step(token) gives the logits [V]."""

    def __init__(self, path):
        pairs, self.tensors = read_gguf(path)
        c = self.c = lambda key: pairs["griffin." + key]
        self.kinds = c("block_types")
        if set(self.kinds) - {"recurrent", "attention"} \
                or c("hidden_activation") != "gelu_pytorch_tanh":
            sys.exit(path + ": not a Griffin")
        self.V, self.D, self.E = c("vocab_size"), c("embedding_length"), c("ssm.inner_size")
        self.H, self.G = c("attention.head_count"), c("attention.head_count_kv")
        self.d, self.W = c("attention.key_length"), c("attention.sliding_window")
        self.position, self.past = 0, [{} for _ in self.kinds]

    def matrix(self, name, rows):
        """Tiles [rows / 32][cols][32] to [rows, cols]."""
        t = self.tensors[name + ".f32"]
        return t.transpose(0, 2, 1).reshape(-1, t.shape[1])[:rows]

    def linear(self, name, x, rows):
        return self.matrix(name + ".weight", rows) @ x + self.tensors.get(name + ".bias", 0)

    def gate(self, name, x):
        """A block-diagonal matrix: each block has tiles of its own."""
        t, B = self.tensors[name + "_weight.f32"], self.c("ssm.group_count")
        w = self.E // B
        t = t.reshape(B, -1, w, 32).transpose(0, 1, 3, 2).reshape(B, -1, w)[:, :w]
        y = np.einsum("bri,bi->br", t, x.reshape(B, w)) + self.tensors[name + "_bias"].reshape(B, w)
        return 1 / (1 + np.exp(-y.reshape(-1)))

    def norm(self, name, x):
        gain = self.c("norm_weight_offset") + self.tensors[name + ".weight"]
        return x / np.sqrt(np.mean(x * x) + self.c("attention.layer_norm_rms_epsilon")) * gain

    def recurrent(self, p, past, u):
        y = gelu(self.linear(p + "linear_y", u, self.E))
        taps = self.tensors[p + "conv_1d.weight"].reshape(self.E, -1)
        rows = past.get("conv", np.zeros((taps.shape[1] - 1, self.E)))
        rows = np.vstack([rows, self.linear(p + "linear_x", u, self.E)])
        past["conv"] = rows[1:]
        c = (rows * taps.T).sum(0) + self.tensors[p + "conv_1d.bias"]
        r, i = self.gate(p + "rg_lru.recurrent_gate", c), self.gate(p + "rg_lru.input_gate", c)
        log_a = -self.c("rglru.c") * r * np.logaddexp(0, self.tensors[p + "rg_lru.recurrent_param"])
        if self.position == 0:
            past["h"] = i * c
        else:
            past["h"] = np.exp(log_a) * past["h"] + np.sqrt(-np.expm1(2 * log_a)) * i * c
        return self.linear(p + "linear_out", past["h"] * y, self.D)

    def rotate(self, x):
        """Of each head [n, d] the first rope_dims, in pairs of two halves."""
        n = self.c("rope.dimension_count")
        angle = self.position * self.c("rope.freq_base") ** (-2 * np.arange(n // 2) / n)
        a, b, sin, cos = x[:, :n // 2], x[:, n // 2:n], np.sin(angle), np.cos(angle)
        return np.hstack([a * cos - b * sin, b * cos + a * sin, x[:, n:]])

    def attention(self, p, past, u):
        heads = [self.linear(p + name, u, n * self.d).reshape(n, self.d) for name, n in
                 (("q_proj", self.H), ("k_proj", self.G), ("v_proj", self.G))]
        q, k, v = self.rotate(heads[0]), self.rotate(heads[1]), heads[2]
        seen = past.setdefault("kv", [])
        seen.append((k, v))
        del seen[:-self.W - 1]                  # a token sees itself and W earlier ones
        k, v = (np.repeat(np.stack(s), self.H // self.G, axis=1) for s in zip(*seen))
        s = np.einsum("hd,thd->ht", q, k) / np.sqrt(self.d)
        s = np.exp(s - s.max(1, keepdims=True))
        y = np.einsum("ht,thd->hd", s / s.sum(1, keepdims=True), v)
        return self.linear(p + "o_proj", y.reshape(-1), self.D)

    def step(self, token):
        table = self.matrix("embed_tokens.weight", self.V)
        x, F = table[token] * self.c("embedding_scale"), self.c("feed_forward_length")
        for layer, kind in enumerate(self.kinds):
            p = "layers.%d." % layer
            mix = self.recurrent if kind == "recurrent" else self.attention
            u = self.norm(p + "temporal_pre_norm", x)
            x = x + mix(p + "temporal_block.", self.past[layer], u)
            u = self.norm(p + "channel_pre_norm", x)
            m = gelu(self.linear(p + "mlp_block.gate_proj", u, F))
            m = m * self.linear(p + "mlp_block.up_proj", u, F)
            x = x + self.linear(p + "mlp_block.down_proj", m, self.D)
        self.position += 1
        cap = self.c("final_logit_softcapping")
        y = table @ self.norm("final_norm", x)
        return cap * np.tanh(y / cap) if cap else y


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


# %% both read the text
model = griffin.Model(path)
if model.info.has_vocabulary:
    tokens = model.encode(text)
else:
    tokens = [i * 7 % model.vocab for i in range(40)]
state, numpy_side = model.state(), Griffin(path)
ours = np.asarray(state.feed(tokens, all=True), np.float64)
theirs = np.stack([numpy_side.step(t) for t in tokens])

# %% and are compared: the logits, and what layers remember
size = np.abs(theirs).max()
worst = np.abs(ours - theirs).max() / size
right = int((ours.argmax(1) == theirs.argmax(1)).sum())
print("%s: %d layers, %s kernels, %d tokens" % (
    path, len(numpy_side.kinds), model.info.kernels, len(tokens)))
print("logits: largest difference %.1e of their size, %.1f; the same best token %d times of %d" % (
    worst, size, right, len(tokens)))

memory, worst_h = bytes(state), 0
for o in model.operations():
    if o.name == "rglru":
        h = np.frombuffer(memory, "f4", numpy_side.E, o.state_offset)
        expected = numpy_side.past[o.layer]["h"]
        worst_h = max(worst_h, np.abs(h - expected).max() / np.abs(expected).max())
print("recurrent states: largest difference %.1e of their size" % worst_h)
sys.exit(int(worst > 1e-5 or worst_h > 1e-5))
