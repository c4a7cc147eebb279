"""Fits the guess of a text's language: ``python scripts/multilingual_guess.py DATA TOKENIZER OUTPUT``.

DATA holds ``flickr8k`` (captions, captions in German, French and Czech, ``train.txt``) and ``parallel``; TOKENIZER is
the full ``tokenizer.json`` of XLM-R (see `multilingual_e5`); OUTPUT gets ``language_guess.npz``. Needs scikit-learn and
wordfreq, whose lists say how frequent a word is in each of many languages (Speer, 2022,
https://doi.org/10.5281/zenodo.7199437).

English are captions, parts of them, the whole words of MiniLM's vocabulary and frequent English words, and known are
also the names of ImageNet's classes; other are captions and parts of them in the other languages, words that one of
these uses far more than English does ("persona", "banco"), and pieces of XLM-R that begin a word, have only Latin
letters and are no word of MiniLM: these stand for the languages without captions.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import wordfreq
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS
from mmsearch.models.encoders.language_guess import BUCKETS, WORD_BUCKETS, buckets, word_bucket, words_of

CAPTIONS = 6_000
"""Of each language."""
CAUTION = 0.7
"""Odds, on the logarithmic scale, by which a text has to look foreign rather than English."""
LANGUAGES = ("de", "fr", "es", "it", "pt", "nl", "sv", "pl", "cs", "ca")
"""Those with Latin letters of which wordfreq has long lists, English aside."""
FREQUENT, FREQUENT_ENGLISH = 3.3, 2.8
"""Words are learned from this Zipf frequency on, the logarithm to base 10 of how often they come in a billion words."""
MORE, MOST = 1.35, 4.2
"""A word is foreign if another language uses it more than English by so much (Zipf), and English uses it less than
that: names of places that everybody knows are frequent in English too.
"""


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


def marks(words: Iterable[str]) -> np.ndarray:
    """The buckets of words, (buckets,) bool."""
    marked = np.zeros(WORD_BUCKETS, dtype=bool)
    marked[[word_bucket(word) for word in words]] = True
    return marked


def share(words: list[str], marked: np.ndarray) -> float:
    """What share of words is marked."""
    return float(marked[[word_bucket(word) for word in words]].mean()) if words else 0.0


def is_word(text: str) -> bool:
    """Whether it has Latin letters only, two or more."""
    return len(text) > 1 and text.isalpha() and all(unicodedata.name(one, "").startswith("LATIN") for one in text)


def frequencies(language: str) -> dict[str, float]:
    """The Zipf frequencies of the words of a language."""
    return {word: wordfreq.freq_to_zipf(often) for word, often in wordfreq.get_frequency_dict(language, "best").items()}


def other_words() -> set[str]:
    """Words that another language uses far more than English does."""
    english = frequencies("en")
    return {
        word for language in LANGUAGES for word, zipf in frequencies(language).items()
        if zipf >= FREQUENT and is_word(word) and zipf - english.get(word, 0.0) > MORE and english.get(word, 0.0) < MOST
    }  # fmt: skip


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
    words = {word for word in english_words if word.isalpha() and word.isascii() and len(word) > 1}
    pieces = [piece for piece, _ in json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"][4:60_000]]
    own_captions = captions(data)
    used = Counter(word for text in own_captions["en"] for word in words_of(text))
    of_others, frequent = other_words(), frequencies("en")
    words |= {word for word, zipf in frequent.items() if zipf >= FREQUENT_ENGLISH and is_word(word)}
    english = sorted(word for word in words if used[word] >= 5 or word not in of_others)
    foreign = {
        piece[1:].lower() for piece in pieces
        if piece.startswith("▁") and len(piece) > 3 and is_word(piece[1:]) and plain(piece[1:]) not in words
    }  # fmt: skip
    foreign = sorted((foreign | of_others) - set(english))
    is_known, is_foreign = marks(english), marks(of_others - set(english))
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
    split = [words_of(text) for text in texts]
    places = [buckets(words) for words in split]
    lengths = np.array([len(one) for one in places])
    values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
    letters = csr_matrix(
        (values, np.concatenate(places), np.concatenate([[0], np.cumsum(lengths)])), (len(texts), BUCKETS)
    )
    counted = [[1 - share(words, is_known), share(words, is_foreign)] for words in split]
    fitted = LogisticRegression(C=8.0, max_iter=60).fit(hstack([letters, csr_matrix(counted)]), labels, weights)
    coefficients, of_words = np.split(fitted.coef_[0], [BUCKETS])
    scale = float(np.abs(coefficients).max() / 127)
    names = (SHIPPED_WEIGHTS / "classes.tsv").read_text(encoding="utf-8").split("\n")
    rare = {word for line in names for word in words_of(line.split("\t")[0])} | {w for w in used if used[w] > 1}
    # Only now: of words that the captions have it could not be learned how unknown English words look.
    is_known |= marks(rare)
    is_foreign &= ~marks(rare)
    constants = [scale, *of_words.tolist(), float(fitted.intercept_[0]) - CAUTION]
    np.savez_compressed(
        output / "language_guess.npz", allow_pickle=False, weights=np.round(coefficients / scale).astype(np.int8),
        known=np.packbits(is_known), foreign=np.packbits(is_foreign), constants=np.array(constants),
    )  # fmt: skip
    sys.stderr.write(f"{len(english)} English words, {is_foreign.sum()} of others, constants {constants}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
