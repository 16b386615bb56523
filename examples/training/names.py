#!/usr/bin/env python3
"""Do stories keep their people? Counts names.

    python3 names.py GRIFFIN MODEL [SAMPLES]         of stories that a model tells
    python3 names.py STORIES.txt                     of stories parted by <|endoftext|>

A name is a word with a capital in the middle of a sentence that some words never are without. The
counts: how many stories end by themselves; of those whose first sentence has a name, in how many
it returns, and how often in a hundred words; in how many a name that was not in it becomes more
frequent after it than those that were.
"""

import re
import subprocess
import sys

PROMPT, TOKENS = "Once upon a time, there was a", 400
NO_NAMES = set("I Mom Mommy Dad Daddy Mama Papa Mum Mummy Grandma Grandpa Mr Mrs Miss Ms Dr God "
               "Christmas Halloween Monday Tuesday Wednesday Thursday Friday Saturday Sunday Once "
               "One The Yes No Oh OK TV A An And But So Then She He It They We You My Your".split())


def told(griffin, model, seed):
    run = subprocess.run([griffin, "run", "-m", model, "-p", PROMPT, "-n", str(TOKENS), "--seed",
                          str(seed), "--threads", "1"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
    tokens = int(re.search(rb"generation +(\d+) tokens", run.stderr)[1])
    return run.stdout.decode("utf-8", "replace"), tokens < TOKENS


def names_in(text):
    """Capitalised words after a small letter or a comma."""
    return [n for n in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", text) if n not in NO_NAMES]


def main():
    if len(sys.argv) == 2:
        with open(sys.argv[1], encoding="utf-8") as f:
            stories = [(s, True) for s in f.read().split("<|endoftext|>") if s.strip()]
    else:
        count = int(sys.argv[3]) if len(sys.argv) > 3 else 100
        stories = [told(sys.argv[1], sys.argv[2], seed) for seed in range(1, count + 1)]
    named = returned = returns = words = intruded = 0
    for text, _ in stories:
        first, _, rest = text.strip().partition(". ")
        known = set(names_in(first))
        if not known:
            continue
        named += 1
        words += len(rest.split())
        here = re.findall(r"\b[A-Z][a-z]+\b", rest)
        new = [n for n in names_in(rest) if n not in known]
        old = max(here.count(n) for n in known)
        returned += old > 0
        returns += sum(here.count(n) for n in known)
        intruded += any(new.count(n) > old for n in new)
    ended = sum(end for _, end in stories)
    print(f"{len(stories)} stories, {ended} end by themselves, {named} name someone at once")
    if named:
        print(f"the name returns in {100 * returned / named:.0f} %, "
              f"{100 * returns / max(1, words):.1f} times in 100 words; "
              f"another becomes more frequent in {100 * intruded / named:.0f} %")


if __name__ == "__main__":
    main()
