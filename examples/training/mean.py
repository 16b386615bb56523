#!/usr/bin/env python3
"""The mean of the weights of two models of one shape, as `griffin train` writes them (f32).

    python3 mean.py A.gguf B.gguf OUT.gguf [SHARE]

SHARE of B, a half if it is not said, and the rest of A. Metadata are those of A. What a long run has
learned by heart, and what the model before it knew better, are weaker in the mean; what both know
stays (Wortsman et al. 2022, arXiv 2203.05482).
"""

import struct
import sys

import numpy

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def where_data_begins(data):
    """The place of the first tensor in the bytes of a GGUF file."""
    tensors, pairs = struct.unpack_from("<QQ", data, 8)
    at = 24

    def text(at):
        return at + 8 + struct.unpack_from("<Q", data, at)[0]

    for _ in range(pairs):
        at = text(at)
        kind, = struct.unpack_from("<I", data, at)
        at, count = at + 4, 1
        if kind == 9:                       # an array
            kind, count = struct.unpack_from("<IQ", data, at)
            at += 12
        if kind != 8:
            at += SIZES[kind] * count
        else:
            for _ in range(count):
                at = text(at)
    for _ in range(tensors):
        at = text(at)
        at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 12
    return (at + 31) // 32 * 32


def main():
    share = float(sys.argv[4]) if len(sys.argv) > 4 else 0.5
    heads, weights = [], []
    for path in sys.argv[1:3]:
        with open(path, "rb") as f:
            data = f.read()
        begin = where_data_begins(data)
        heads.append(data[:begin])
        weights.append(numpy.frombuffer(data, "<f4", offset=begin))
    if len(heads[0]) != len(heads[1]) or len(weights[0]) != len(weights[1]):
        sys.exit("the models differ in shape")
    mean = weights[0] + share * (weights[1].astype(numpy.float64) - weights[0])
    with open(sys.argv[3], "wb") as f:
        f.write(heads[0] + mean.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
