#!/usr/bin/env python3
"""Makes the storyteller's training text.

    python3 stories.py FOLDER OUT [TIMES_SIMPLE [TIMES_TALES]]

FOLDER holds tinystories.txt, children_pd.txt, their SOURCES.md, and the held-out valid*.txt. OUT
gets simple stories first and tales after them, each as often as it is told to (default: once). A
line <|endoftext|> parts the documents; `griffin train` shuffles them anew in every epoch.

Left out are duplicates, whatever is held out, and books whose authors are not known to have died
by 1955: those are not free in every country.
"""

import re
import sys

BORDER = "<|endoftext|>\n"

# Words of the titles of books whose authors died by 1955, by author.
FREE = {
    "H. C. Andersen, 1875": ["Andersen-s-Fairy"],
    "A. S. Bailey, 1949": ["The-Tale-of-(?!Peter-Rabbit)"],
    "J. Baldwin, 1925": ["Fifty-Famous-Stories"],
    "L. F. Baum, 1919": ["Ozma", "Emerald-City", "Wizard-of-Oz", "Twinkle-and"],
    "Flora J. Cooke, 1953": ["Nature-Myths"],
    "J. and W. Grimm, 1863": ["Grimm"],
    "J. Gruelle, 1938": ["Friendly-Fairies", "Raggedy-Ann"],
    "J. Jacobs, 1916": ["English-Fairy", "Europa-s"],
    "A. Lang, 1912": ["Blue-Fairy", "Green-Fairy"],
    "Maud Lindsay, 1941": ["Mother-Stories"],
    "H. W. Mabie, 1916": ["Fairy-Tales-Every"],
    "Lida B. McMurry, 1942": ["Fifty-Famous-Fables"],
    "Lucy Fitch Perkins, 1937": ["Dutch-Twins", "Swiss-Twins"],
    "Clara D. Pierson, 1952": ["Among-the"],
    "Beatrix Potter, 1943": ["Tale-of-Peter-Rabbit"],
    "Anna Sewell, 1878": ["Black-Beauty"],
    "Carolyn Wells, 1942": ["Marjorie-s"],
    "Margery Williams, 1944": ["Velveteen"],
}


def documents(path):
    with open(path, encoding="utf-8") as f:
        return [d.strip("\n") + "\n" for d in f.read().split(BORDER) if d.strip()]


def books(path):
    """(title, pieces, bytes) of each book, in the order in which children_pd.txt has them."""
    row = re.compile(r"\| GITenberg/(\S+) \|(?:[^|]*\|){3} (\d+) \| (\d+) \|")
    with open(path, encoding="utf-8") as f:
        return [(m[1], int(m[2]), int(m[3])) for m in map(row.match, f) if m]


def book_of_pieces(pieces, table, most_held_out=6):
    """The title of each piece. A few pieces of a book may be missing, since they are held out; so
    of all ways to cut the list into books, this takes the one whose sizes fit the table best."""
    ends = [0]
    for p in pieces:
        ends.append(ends[-1] + len(p.encode()))
    best = {0: (0, None)}               # pieces used: (misfit, where the last book begins)
    steps = []
    for title, count, size in table:
        found = {}
        for at, (cost, _) in best.items():
            for missing in range(min(count, most_held_out) + 1):
                end = at + count - missing
                if end > len(pieces):
                    continue
                gap = abs(size - (ends[end] - ends[at]))
                misfit = cost + (gap if not missing else max(0, gap - 9000 * missing) + 50)
                if end not in found or misfit < found[end][0]:
                    found[end] = (misfit, at)
        best = found
        steps.append(found)
    titles, end = [], len(pieces)
    for (title, _, _), found in zip(reversed(table), reversed(steps)):
        start = found[end][1]
        titles[:0] = [title] * (end - start)
        end = start
    return titles


def author_of(title):
    for author, words in FREE.items():
        if any(re.search(w, title) for w in words):
            return author
    return None


def key_of(document):
    """What two copies of a document have in common: the letters of its beginning."""
    return re.sub("[^a-z]", "", document.lower())[:200]


def new_ones(found, seen):
    kept = []
    for d in found:
        k = key_of(d)
        if k not in seen:
            seen.add(k)
            kept.append(d)
    return kept


def main():
    folder, out = sys.argv[1], sys.argv[2]
    times = [int(n) for n in sys.argv[3:5]] + [1, 1][len(sys.argv[3:5]):]
    seen = {key_of(d) for name in ("valid.txt", "valid_books.txt")
            for d in documents(f"{folder}/{name}")}
    simple = new_ones(documents(f"{folder}/tinystories.txt"), seen)
    pieces = documents(f"{folder}/children_pd.txt")
    titles = book_of_pieces(pieces, books(f"{folder}/SOURCES.md"))
    by_author = {}
    for piece, title in zip(pieces, titles):
        by_author.setdefault(author_of(title), []).append(piece)
    left_out = by_author.pop(None, [])
    tales = []
    for author in sorted(by_author):
        kept = new_ones(by_author[author], seen)
        tales += kept
        print(f"{author:26}{len(kept):6} documents {sum(map(len, kept)):9} characters")
    with open(out, "w", encoding="utf-8") as f:
        f.write("".join(d + BORDER for d in simple * times[0] + tales * times[1]))
    for name, part, n, licence in (("simple stories", simple, times[0],
                                    "TinyStories, CDLA-Sharing-1.0"),
                                   ("tales", tales, times[1], "public domain")):
        size = sum(len(d.encode()) for d in part)
        print(f"{name}: {len(part)} documents, {size} bytes, {n} times; {licence}")
    print(f"left out: {len(left_out)} documents of books by others")


if __name__ == "__main__":
    main()
