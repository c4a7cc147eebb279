"""Fits the guess of a text's language: ``python scripts/multilingual_guess.py DATA TOKENIZER OUTPUT``.

DATA holds ``flickr8k`` (captions, captions in German, French and Czech, ``train.txt``) and ``parallel``; TOKENIZER is
the full ``tokenizer.json`` of XLM-R (see `multilingual_e5`); OUTPUT gets ``language_guess.npz``. Needs scikit-learn.
English are captions, parts of them and the whole words of MiniLM's vocabulary, and known are also the names of
ImageNet's classes; other are captions and parts of them in the other languages, and pieces of XLM-R that begin a word,
have only Latin letters and are no word of MiniLM: these stand for the languages without captions.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS
from mmsearch.models.encoders.language_guess import BUCKETS, KNOWN_BUCKETS, buckets, known_bucket, words_of

CAPTIONS = 6_000
"""Of each language."""
CAUTION = 0.7
"""Odds, on the logarithmic scale, by which a text has to look foreign rather than English."""
RARER = 0.35
"""A word of MiniLM's vocabulary is not English if its place in that list, which is ordered by frequency, is so much
further down than in XLM-R's, unless captions use it."""


def plain(word: str) -> str:
    """As MiniLM spells words: small, without accents."""
    parts = unicodedata.normalize("NFD", word.lower())
    return "".join(character for character in parts if not unicodedata.combining(character))


def rows(path: Path) -> list[dict[str, str]]:
    """A table with tabs."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def captions(data: Path) -> dict[str, list[str]]:
    """Captions to learn from by language."""
    train = set((data / "flickr8k/train.txt").read_text(encoding="utf-8").split())
    names = {"en": "captions", "de": "captions_de", "fr": "captions_fr", "cs": "captions_cs"}
    found = {
        code: [row["caption"] for row in rows(data / f"flickr8k/{name}.tsv") if row["image"] in train]
        for code, name in names.items()
    }
    for row in rows(data / "parallel/en_de_fr_cs.tsv"):
        for code in found:
            found[code].append(row[code])
    return found


def with_parts(texts: list[str], draw: random.Random) -> list[str]:
    """Texts, and as many runs of one to four words out of them."""
    parts = []
    for text in texts:
        words = text.split()
        count = draw.randint(1, 4)
        start = draw.randrange(max(1, len(words) - count + 1))
        parts.append(" ".join(words[start : start + count]))
    return texts + parts


def main(data: Path, tokenizer: Path, output: Path) -> None:
    """Fits and writes."""
    draw = random.Random(0)
    english_words = json.loads((SHIPPED_WEIGHTS / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = [word for word in english_words if word.isalpha() and word.isascii() and len(word) > 1]
    pieces = [piece for piece, _ in json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"][4:60_000]]
    known = set(words)
    own_captions = captions(data)
    used = Counter(word for text in own_captions["en"] for word in words_of(text))
    place = {}
    for number, piece in enumerate(pieces):
        place.setdefault(piece[1:].lower() if piece.startswith("▁") else "", number)
    english = [
        word for rank, word in enumerate(words)
        if used[word] >= 5 or place.get(word, len(pieces)) > RARER * rank
    ]  # fmt: skip
    is_known = np.zeros(KNOWN_BUCKETS, dtype=bool)
    is_known[[known_bucket(word) for word in english]] = True
    foreign = [
        piece[1:] for piece in pieces
        if piece.startswith("▁") and len(piece) > 3 and piece[1:].isalpha() and plain(piece[1:]) not in known
        and unicodedata.name(piece[1], "").startswith("LATIN")
    ]  # fmt: skip
    texts, labels, weights = [], [], []
    for code, own in own_captions.items():
        draw.shuffle(own)
        count = CAPTIONS * (3 if code == "en" else 1)
        chosen = with_parts(own[:count], draw)
        texts += chosen
        labels += [int(code != "en")] * len(chosen)
        weights += [1.0] * len(chosen)
    texts += english + foreign
    labels += [0] * len(english) + [1] * len(foreign)
    weights += [0.5] * len(english) + [0.5] * len(foreign)
    places = [buckets(words_of(text)) for text in texts]
    lengths = np.array([len(one) for one in places])
    values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
    letters = csr_matrix(
        (values, np.concatenate(places), np.concatenate([[0], np.cumsum(lengths)])), (len(texts), BUCKETS)
    )
    unknown = [[np.mean([not is_known[known_bucket(word)] for word in words_of(text)] or [0])] for text in texts]
    fitted = LogisticRegression(C=8.0, max_iter=60).fit(hstack([letters, csr_matrix(unknown)]), labels, weights)
    coefficients = fitted.coef_[0][:BUCKETS]
    scale = float(np.abs(coefficients).max() / 127)
    names = (SHIPPED_WEIGHTS / "classes.tsv").read_text(encoding="utf-8").split("\n")
    rare = {word for line in names for word in words_of(line.split("\t")[0])} | {w for w in used if used[w] > 1}
    # Only now: of words that the captions have it could not be learned how unknown English words look.
    is_known[[known_bucket(word) for word in rare]] = True
    constants = [scale, float(fitted.coef_[0][-1]), float(fitted.intercept_[0]) - CAUTION]
    np.savez_compressed(
        output / "language_guess.npz", allow_pickle=False, weights=np.round(coefficients / scale).astype(np.int8),
        known=np.packbits(is_known), constants=np.array(constants),
    )  # fmt: skip


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
