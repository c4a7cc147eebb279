"""The second text encoder of the built-in model: texts that are not English, into the same space.

Its layers and its pieces come from multilingual-e5-small (Wang et al., 2024, https://arxiv.org/abs/2402.05672); the
last four layers and what follows learned on (``scripts/multilingual_train.py``). Three files lie beside the other
weights: the graph, with 4 bits a weight where the source has no more, the pieces, and what `language_guess` needs to
tell English from the rest.
None is part of the encoder's digest: it reads queries only, so what an index holds does not depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmsearch.core.letters import is_spaceless
from mmsearch.models.encoders.unigram import UNKNOWN, Unigram

_TELLING = (("\u0e00", 1), ("\u0590", 2), ("", 3))
"""Letters that a part of a word must have to mean something, by its first letter: from Thai on a letter stands for a
syllable or a word, from Hebrew on (and in Arabic) for a consonant with its vowels, before for a sound.
"""

RARE = -9.5
"""A word tells pictures apart if its probability in XLM-R's vocabulary is below e to this power: of captions that are
translated line by line as many words are counted as `mmsearch.query.fuse.content_words` counts in English.
"""
_LETTERS_A_WORD = 2
"""Of scripts without spaces, on average."""
_IN_NO_PICTURE = """
    photo photos foto fotos фото фотография fotografie fotografía bild image imagen imágenes صورة 사진
    einem einen einer eines durch
"""
_SILENT = frozenset(_IN_NO_PICTURE.split())
_SILENT_PARTS = re.compile("照片|图片|图像|写真|画像|^一.$")
"""Words for a picture, and articles and the like that are rare for what they are."""


@dataclass(frozen=True)
class MultilingualDescription:
    """The part ``multilingual`` of ``encoder.json``."""

    graph_file: str
    pieces_file: str
    guess_file: str
    max_tokens: int


class MultilingualTokens:
    """Pieces of texts, read when they are needed first."""

    def __init__(self, directory: Path, description: MultilingualDescription) -> None:
        self._path, self._limit = directory / description.pieces_file, description.max_tokens

    @cached_property
    def _unigram(self) -> Unigram:
        return Unigram.read(self._path)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, start and end included."""
        return [self._unigram.encode(text, self._limit) for text in texts]

    def reads(self, text: str) -> bool:
        """Whether any piece of a text means something; see `means_something`."""
        unigram = self._unigram
        return any(
            means_something([None if n == UNKNOWN else unigram.pieces[n].replace("▁", "") for n in word])
            for word in unigram.words(text)
        )

    def telling_words(self, text: str) -> float:
        """How many words of a text tell pictures apart, 1 or more: those that are rare enough (see `RARE`)."""
        unigram, words, letters = self._unigram, set(), 0
        for numbers in unigram.words(text.lower()):
            parts = ["x" if n == UNKNOWN else unigram.pieces[n].replace("▁", "") for n in numbers]
            word = "".join(parts)
            if is_spaceless(word):
                letters += sum(
                    len(part) for n, part in zip(numbers, parts, strict=True)
                    if any(map(str.isalnum, part)) and unigram.score(n) < RARE and not _SILENT_PARTS.search(part)
                )  # fmt: skip
            elif any(map(str.isalnum, word)) and sum(map(unigram.score, numbers)) < RARE and word not in _SILENT:
                words.add(word)
        return max(1.0, len(words) + letters / _LETTERS_A_WORD)


def means_something(parts: Iterable[str | None]) -> bool:
    """Whether an encoder knows a word by its ``parts``, of which ``None`` is one that it does not know: the word is one
    part, or a part has three letters, or fewer in scripts whose letters say more.
    """
    known = list(parts)
    bare = [part for part in known if part is not None and any(map(str.isalnum, part))]
    if len([part for part in known if part != ""]) == 1 and bare:
        return True
    return any(len(part) >= next(count for first, count in _TELLING if part >= first) for part in bare)
