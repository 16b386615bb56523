#!/usr/bin/env python3
"""Does a model get worse the longer it has read?

    python3 positions.py GRIFFIN MODEL TEXT LENGTH [TIMES]

Loss in nats a token of stories parted by <|endoftext|>, by how many tokens were read before: from
LENGTH (of the sequences in training) to TIMES (64) as many. The state runs on from story to story;
beside it the loss of the same stories, each read with nothing before it.
"""

import re
import subprocess
import sys


def nats(griffin, model, text, limit, *options):
    run = subprocess.run([griffin, "perplexity", "-m", model, "-f", text, "--split", "gaps",
                          "--threads", "1", "--limit", str(limit), *options],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    values = dict(re.findall(r"^(nats per token|tokens) +([\d.]+)", run.stdout.decode(), re.M))
    return float(values["nats per token"]) * float(values["tokens"]), float(values["tokens"])


def main():
    griffin, model, text = sys.argv[1:4]
    length, times = int(sys.argv[4]), int(sys.argv[5]) if len(sys.argv) > 5 else 64
    before, start = [(0.0, 0.0), (0.0, 0.0)], 0
    while length <= times * int(sys.argv[4]):
        now = [nats(griffin, model, text, length, *o) for o in (["--run-on"], [])]
        on, afresh = [(n[0] - b[0]) / (n[1] - b[1]) for n, b in zip(now, before)]
        print(f"{start:7} to {length:7}   runs on {on:.4f}   afresh {afresh:.4f}", flush=True)
        before, start, length = now, length, 2 * length


if __name__ == "__main__":
    main()
