#!/usr/bin/env python3
"""Makes the texts of the three characters from plain text files of the books.

    python3 texts.py FOLDER

FOLDER holds treasure.txt, jungle.txt, alice.txt and looking.txt, as Project Gutenberg has them
(numbers 120, 236, 11 and 12). What is said in a paragraph becomes one line of the character's:

    The pirate said, "Fifteen men on the dead man's chest."

The lines are in the order of the books. pirate.txt, wolf.txt and girl.txt are written beside this
file.
"""

import pathlib
import re
import sys

CHARACTERS = {
    "pirate": ["treasure"],         # Robert Louis Stevenson, died 1894
    "wolf": ["jungle"],             # Rudyard Kipling, died 1936
    "girl": ["alice", "looking"],   # Lewis Carroll, died 1898
}
SHORTEST, LONGEST = 24, 420         # bytes of a line


def plain(text):
    """ASCII; double quotes in place of single ones where a book has these."""
    for old, new in (("\u201c", '"'), ("\u201d", '"'), ("\u2018", "'"), ("\u2019", "'"),
                     ("\u2014", "--"), ("_", ""), ("*", "")):
        text = text.replace(old, new)
    text = text.encode("ascii", "ignore").decode()
    if text.count('"') < len(re.findall(r"\W'[A-Za-z]", text)):
        text = re.sub(r"(?<![A-Za-z])'(?=[A-Za-z])", '"', text)
        text = re.sub(r"(?<=[,.!?;:-])'(?![A-Za-z])", '"', text)
    return text


def spoken(paragraph):
    """All that is between double quotes, as one speech."""
    speech = ""
    for part in re.findall(r'"([^"]+)"', paragraph):
        if part.strip()[:1].isupper():
            speech = re.sub(r",$", ".", speech.strip())
        speech += " " + part.strip()
    speech = speech.strip()
    speech = re.sub(r"\s+", " ", speech).rstrip(",;:- ")
    return speech if not speech or speech[-1] in ".!?" else speech + "."


def lines_of(text, name):
    for paragraph in re.split(r"\n\s*\n", text):
        speech = spoken(paragraph)
        if SHORTEST <= len(speech) <= LONGEST and speech[0].isupper():
            yield f'The {name} said, "{speech}"\n\n'


def main():
    folder, here = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent
    for name, books in CHARACTERS.items():
        lines = []
        for book in books:
            text = plain((folder / f"{book}.txt").read_text(encoding="utf-8", errors="replace"))
            lines += lines_of(text, name)
        (here / f"{name}.txt").write_text("".join(lines), encoding="ascii")
        print(f"{name}: {len(lines)} lines, {sum(map(len, lines))} bytes")


if __name__ == "__main__":
    main()
