"""The pieces of a SentencePiece unigram model (Kudo, 2018, https://arxiv.org/abs/1804.10959), without its library.

The ``tokenizers`` library takes longer to build its tables of 70,000 pieces than a whole query does otherwise: 0.15 s
against 0.02 s. A query is short, and a dictionary suffices for it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmsearch.core.errors import EncoderError

START, PAD, END, UNKNOWN = range(4)
SPACE = "▁"
_SPACES = {0x200B: " ", 0xFEFF: " "}
"""Signs without a width that part words."""
_UNKNOWN_PENALTY = 10.0
_LONGEST_WORD = 200
"""Letters of one word that are split by their scores; a longer one is cut into such parts first."""


class Unigram:
    """Texts to the most probable pieces. ``pieces`` in the order of their numbers, the first four of them special, with
    the logarithms of their probabilities; ``▁`` begins a word.
    """

    def __init__(self, pieces: Sequence[str], scores: Sequence[float]) -> None:
        self.pieces = pieces
        self._scores = scores
        self._numbers = dict(zip(pieces[UNKNOWN + 1 :], range(UNKNOWN + 1, len(pieces)), strict=True))
        self._longest = max(map(len, pieces))
        self._unknown = min(scores) - _UNKNOWN_PENALTY
        self._split = lru_cache(maxsize=50_000)(self._best_split)

    @classmethod
    def read(cls, path: Path) -> Unigram:
        """From an ``.npz`` with ``pieces`` (UTF-8 bytes, a piece a line) and ``scores`` (pieces,).

        Raises:
            EncoderError: it cannot be read.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                pieces = stored["pieces"].tobytes().decode("utf-8").split("\n")
                return cls(pieces, stored["scores"].tolist())
        except Exception as error:  # a damaged archive raises whatever its readers stumble over
            raise EncoderError(
                f"{path} cannot be read as pieces of a tokenizer: {error}; reinstall mmsearch"
            ) from error

    def words(self, text: str) -> Iterator[tuple[int, ...]]:
        """The numbers of the pieces of each word of a text."""
        # Compatibility forms and spaces as SentencePiece's nmt_nfkc treats them; letters that combine stay.
        valid = text.encode("utf-8", "replace").decode("utf-8")
        for word in unicodedata.normalize("NFKC", valid).translate(_SPACES).split():
            kept = "".join(c for c in word if c.isascii() or unicodedata.category(c) not in ("Cc", "Cf", "Cn", "Co"))
            for start in range(0, len(kept), _LONGEST_WORD):
                yield self._split((SPACE if start == 0 else "") + kept[start : start + _LONGEST_WORD])

    def score(self, number: int) -> float:
        """The logarithm of the probability of a piece."""
        return self._unknown if number == UNKNOWN else self._scores[number]

    def encode(self, text: str, limit: int) -> list[int]:
        """The pieces of a text, start and end included, at most ``limit`` of them."""
        numbers = [number for word in self.words(text) for number in word]
        return [START, *numbers[: limit - 2], END]

    def _best_split(self, word: str) -> tuple[int, ...]:
        """The pieces of a word with the highest sum of scores (Viterbi); unknown letters side by side are one."""
        size = len(word)
        best = [0.0] + [-math.inf] * size
        reached: list[tuple[int, int]] = [(0, UNKNOWN)] * (size + 1)
        for start in range(size):
            for end in range(start + 1, min(size, start + self._longest) + 1):
                number = self._numbers.get(word[start:end])
                if number is None:
                    if end > start + 1:
                        continue
                    number, score = UNKNOWN, self._unknown
                else:
                    score = self._scores[number]
                if best[start] + score > best[end]:
                    best[end], reached[end] = best[start] + score, (start, number)
        numbers: list[int] = []
        while size:
            size, number = reached[size]
            if number != UNKNOWN or not numbers or numbers[-1] != UNKNOWN:
                numbers.append(number)
        return tuple(reversed(numbers))
