"""What is written about documents: file names, folders, captions, descriptions, text passages, text in pictures.

Each word of a question weighs log((n + 1) / (documents that have it + 0.5)), its inverse document frequency. A
document's share is the weight of the words it has over the weight of all words; a word that no document has
weighs most, because what the question is about may only be in the pictures. Words that were read in a picture or a
video frame count for that frame, beside those that are written about the whole document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mmsearch.store.local.catalogue import Catalogue
from mmsearch.store.local.catalogue.matching import count_documents, documents_with_words, match_phrase
from mmsearch.store.local.catalogue.read_text import (
    has_readings,
    lines_with,
    pictures_with,
    sought_letters,
    text_of_row,
)

_WORD = re.compile(r"[^\W_]+")
MOST = 5_000
"""A word that more documents have than this tells too little to be worth their list."""
_SILENT = """
    a an and are as at be by for from had has have he her his in into is it its near no not of off on or our
    out over she some that the their them there these they this to under up was we were what when where
    which while who with you your img dsc jpg jpeg png photo picture image
"""
STOP_WORDS = frozenset(_SILENT.split())
"""Words that tell no document from another: grammar, and what cameras and programs write."""


@dataclass(frozen=True)
class Holders:
    """Who has a word: the documents about which it is ``written``, and the (document, row) of the pictures in which it
    was ``read``. Both are empty where these are more than ``MOST`` documents; ``count`` is then ``MOST`` + 1.
    """

    written: Sequence[int]
    read: Sequence[tuple[int, int]]
    count: int


HoldersOfWords = dict[str, Holders]


@dataclass(frozen=True)
class Evidence:
    """``shares``: for each document that has any of the words, how much of the question they are, 0 to 1.

    ``read``: the shares of frames, as (document, row of the vector), in which some of the words were read; the share of
    such a document is that of its best frame, and ``written`` that of its other ones.
    """

    shares: Mapping[int, float]
    words: tuple[str, ...]
    written: Mapping[int, float] = field(default_factory=dict)
    read: Mapping[tuple[int, int], float] = field(default_factory=dict)

    def bonus(self, document: int, row: int, most: float) -> float:
        """What a frame's score rises by: its share squared, so that one word of many decides nothing."""
        share = self.read.get((document, row), self.written.get(document, 0.0))
        return most * share**2


def content_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of a question that can tell documents apart, in lower case."""
    words = (word.lower() for text in texts for word in _WORD.findall(text))
    return tuple(dict.fromkeys(word for word in words if word not in STOP_WORDS and (len(word) > 1 or word.isdigit())))


def find_evidence(
    catalogue: Catalogue, space_id: int, texts: Iterable[str], known: HoldersOfWords | None = None
) -> Evidence:
    """Which documents have words of the question in what is written about them, or in their pictures.

    ``known``: what many questions share; words that are not in it are looked up and put there.
    """
    words = content_words(texts)
    known = {} if known is None else known
    if missing := [word for word in words if word not in known]:
        are_read = has_readings(catalogue)
        known.update((word, _holders(catalogue, space_id, word, are_read)) for word in missing)
    holders = {word: known[word] for word in words}
    if not any(found.count for found in holders.values()):
        return Evidence({}, words)
    count = count_documents(catalogue)
    weights = {word: math.log((count + 1) / (found.count + 0.5)) for word, found in holders.items()}
    total = sum(weight for weight in weights.values() if weight > 0)
    telling = [word for word in words if weights[word] > 0]
    written: dict[int, float] = {}
    for word in telling:
        for document in holders[word].written:
            written[document] = written.get(document, 0.0) + weights[word] / total
    read: dict[tuple[int, int], float] = {}
    for word in telling:
        written_in = set(holders[word].written) if holders[word].read else set()
        for document, row in holders[word].read:
            so_far = read.setdefault((document, row), written.get(document, 0.0))
            if document not in written_in:  # or the word would count twice
                read[document, row] = so_far + weights[word] / total
    shares = dict(written)
    for (document, _), share in read.items():
        shares[document] = max(share, shares.get(document, 0.0))
    return Evidence(shares, words, written, read)


def _holders(catalogue: Catalogue, space_id: int, word: str, are_read: bool) -> Holders:
    match = _match(word)
    written = documents_with_words(catalogue, match, MOST)
    if written is None:
        return Holders((), (), MOST + 1)
    read = pictures_with(catalogue, space_id, match, sought_letters(word), MOST) if are_read else []
    count = len({*written, *(document for document, _ in read)})
    return Holders(written, read, count) if count <= MOST else Holders((), (), MOST + 1)


def lines_read(catalogue: Catalogue, space_id: int, row: int, words: Iterable[str]) -> str | None:
    """The lines read in the picture of a vector that have one of the words; ``None`` where there are none."""
    text = text_of_row(catalogue, space_id, row)
    return None if text is None else "\n".join(lines_with(text, (f for w in words for f in _forms(w)))) or None


def _match(word: str) -> str:
    """The word and its plain plural or singular, as an FTS5 query."""
    return " OR ".join(match_phrase(form) for form in _forms(word))


def _forms(word: str) -> list[str]:
    forms = [word, word + "s"]
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        forms.append(word[:-1])
    return [form for form in forms if len(form) > 1 or form.isdigit()]
