"""Whether a text is English, by its letters: which of the two text encoders of the built-in model reads it.

A text with a letter that is not Latin is not English; among Latin letters a linear model decides that looks at whole
words and at groups of two to four letters (Cavnar and Trenkle, 1994, "N-Gram-Based Text Categorization"), each in one
of ``BUCKETS`` buckets by its hash, and at how many of the words English knows and how many are words of another
language. ``scripts/multilingual_guess.py`` fits it.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

BUCKETS, WORD_BUCKETS = 1 << 16, 1 << 21
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_LATIN = re.compile(r"[A-Za-zªºÀ-ÖØ-öø-ɏḀ-ỿ]")


def words_of(text: str) -> list[str]:
    """The words of a text in small letters."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def word_bucket(word: str) -> int:
    """The bucket of a word among those that English knows, or that another language has."""
    return zlib.crc32(word.encode("utf-8", "replace")) % WORD_BUCKETS


def buckets(words: Iterable[str]) -> npt.NDArray[np.int64]:
    """The buckets of all words and their groups of letters, in any order, repeated as often as they come."""
    found = [zlib.crc32(part.encode("utf-8", "replace")) % BUCKETS for word in words for part in _parts(word)]
    return np.array(found, dtype=np.int64)


def _parts(word: str) -> Iterator[str]:
    framed = f"<{word}>"
    yield framed + "="  # whole words have buckets of their own
    for size in (2, 3, 4):
        yield from (framed[start : start + size] for start in range(len(framed) - size + 1))


@dataclass(frozen=True)
class _Model:
    weights: npt.NDArray[np.int8]
    scale: float
    known: npt.NDArray[np.bool_]
    foreign: npt.NDArray[np.bool_]
    unknown_weight: float
    foreign_weight: float
    offset: float


@lru_cache(maxsize=2)
def _model(path: Path) -> _Model:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        known, foreign = (np.unpackbits(stored[name]).astype(bool) for name in ("known", "foreign"))
        scale, unknown_weight, foreign_weight, offset = stored["constants"].tolist()
        return _Model(stored["weights"], scale, known, foreign, unknown_weight, foreign_weight, offset)


@lru_cache(maxsize=256)
def is_english(text: str, path: Path) -> bool:
    """Whether the English text encoder should read a text; ``path``: the fitted weights. One without letters is.

    Kept for a while, as several steps of a search ask for it.
    """
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return True
    if not all(_LATIN.match(character) for character in letters):
        return False
    return foreignness(text, path) <= 0


def foreignness(text: str, path: Path) -> float:
    """The logarithm of the odds that a text of Latin letters is not English."""
    model, words = _model(path), words_of(text)
    if not words:
        return model.offset
    places = buckets(words)
    letters = float(model.weights[places].sum(dtype=np.int64)) * model.scale / len(places) ** 0.5
    numbers = [word_bucket(word) for word in words]
    unknown, foreign = 1 - float(model.known[numbers].mean()), float(model.foreign[numbers].mean())
    return float(letters + model.unknown_weight * unknown + model.foreign_weight * foreign + model.offset)
