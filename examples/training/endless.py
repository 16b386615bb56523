#!/usr/bin/env python3
"""Does a model tell for ever, or fall into repetition?

    python3 endless.py GRIFFIN MODEL [SEEDS [TOKENS [FIRST]]]

Lets it tell tale after tale, 20 seeds from 1 on, 20000 tokens each, and compresses each
window of 2000 bytes with zlib. Text that repeats itself compresses below a quarter of its size.
Prints for each seed the smallest share that is left, and the place of the first window below a
quarter.
"""

import subprocess
import sys
import zlib

WINDOW, STEP, PROMPT = 2000, 50, "Once upon a time"


def told(griffin, model, seed, tokens):
    command = [griffin, "run", "-m", model, "-p", PROMPT, "-n", str(tokens), "--carry-on",
               "--seed", str(seed), "--threads", "1"]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=True).stdout


def main():
    griffin, model = sys.argv[1:3]
    seeds, tokens, first = [int(n) for n in sys.argv[3:6]] + [20, 20000, 1][len(sys.argv[3:6]):]
    fallen = 0
    for seed in range(first, first + seeds):
        text = told(griffin, model, seed, tokens)
        shares = [len(zlib.compress(text[i:i + WINDOW])) / WINDOW
                  for i in range(0, max(1, len(text) - WINDOW + 1), STEP)]
        bad = [i * STEP for i, share in enumerate(shares) if share < 0.25]
        fallen += bool(bad)
        print(f"seed {seed:2}: {len(text)} bytes, smallest share {min(shares):.3f}"
              + (f", repeats from byte {bad[0]}, {len(bad)} windows" if bad else ""), flush=True)
    print(f"{seeds - fallen} of {seeds} never repeat themselves")


if __name__ == "__main__":
    main()
