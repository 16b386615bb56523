#!/usr/bin/env python3
"""Which words does a model say for ever, once it has said them some times?

    python3 again.py GRIFFIN MODEL TEXT [WORDS]

Takes the WORDS (1200) most frequent words of a text in small letters. After the beginning of a
story and six times the word, how likely is it that the word comes again (at temperature 0.8)?
Prints the mean by the number of the word's tokens, and the worst words. Wants NumPy.
"""

import collections
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np

START = ("Once upon a time, there was a little boy named Timmy. Timmy loved to play outside. One "
         "day he went to the park and his mom gave him a")
TIMES, TEMPERATURE = 6, 0.8


def run(griffin, *arguments):
    return subprocess.run([griffin, *arguments], stdout=subprocess.PIPE, check=True,
                          stderr=subprocess.DEVNULL).stdout.decode("utf-8", "replace")


def tokens_of(griffin, model, text):
    """(number, text) of each token."""
    lines = run(griffin, "tokenize", model, "--no-bos", "-p", text).splitlines()
    return [(int(m[1]), m[2]) for m in (re.match(r" *(\d+) '(.*)'$", line) for line in lines) if m]


def logits_of(griffin, model, texts):
    """[tokens of all texts][vocabulary]; each text from a fresh state."""
    with tempfile.TemporaryDirectory() as folder:
        asked, given = os.path.join(folder, "tokens.json"), os.path.join(folder, "logits")
        with open(asked, "w", encoding="utf-8") as f:
            json.dump({"tokens": sum(texts, []),
                       "segment_pos": sum((list(range(len(t))) for t in texts), [])}, f)
        run(griffin, "logits", model, "--tokens", asked, "--out", given)
        return np.fromfile(given, dtype=np.float32).reshape(sum(map(len, texts)), -1)


def main():
    griffin, model, path = sys.argv[1:4]
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 1200
    with open(path, encoding="utf-8") as f:
        found = collections.Counter(re.findall(r" ([a-z]+)", f.read())).most_common(count)
    words = []
    for number, text in tokens_of(griffin, model, " ".join(["a"] + [word for word, _ in found])):
        if text.startswith(" "):
            words.append(([], ""))
        if words:
            words[-1] = (words[-1][0] + [number], words[-1][1] + text)
    start = json.loads(run(griffin, "tokenize", model, "--ids", "-p", START))
    texts = [start + numbers * (TIMES + 1) for numbers, _ in words]
    logits, at, results = logits_of(griffin, model, texts), 0, []
    for (numbers, word), text in zip(words, texts):
        at += len(text)
        rows = logits[at - len(numbers) - 1:at - 1].astype(np.float64) / TEMPERATURE
        odds = np.exp(rows - rows.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        chance = np.prod(odds[range(len(numbers)), numbers])
        results.append((chance, len(numbers), word.strip()))
    for low, high in ((1, 1), (2, 2), (3, 99)):
        some = [chance for chance, tokens, _ in results if low <= tokens <= high]
        if not some:
            continue
        print(f"{low}{'' if low == high else ' or more'} token{'s'[:high > 1]}: {len(some)} words, "
              f"again {100 * np.mean(some):.2f} %, over one half {sum(c > 0.5 for c in some)}")
    for chance, tokens, word in sorted(results, reverse=True)[:12]:
        print(f"{word:20} {tokens} tokens  {100 * chance:.0f} %")


if __name__ == "__main__":
    main()
