"""What is written about documents: file names, folders, captions, descriptions, text passages.

Each word of a question weighs log((n + 1) / (documents that have it + 0.5)), its inverse document frequency. A
document's share is the weight of the words it has over the weight of all words; a word that no document has
weighs most, because what the question is about may only be in the pictures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmsearch.catalogue import Catalogue
from mmsearch.catalogue.matching import count_documents, documents_with_words, match_phrase

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
class Evidence:
    """``shares``: for each document that has any of the words, how much of the question they are, 0 to 1."""

    shares: Mapping[int, float]
    words: tuple[str, ...]

    def bonus(self, document: int, most: float) -> float:
        """What a document's score rises by: its share squared, so that one word of many decides nothing."""
        return most * self.shares.get(document, 0.0) ** 2


def content_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of a question that can tell documents apart, in lower case."""
    words = (word.lower() for text in texts for word in _WORD.findall(text))
    return tuple(dict.fromkeys(word for word in words if word not in STOP_WORDS and (len(word) > 1 or word.isdigit())))


def find_evidence(catalogue: Catalogue, texts: Iterable[str]) -> Evidence:
    """Which documents have words of the question in what is written about them."""
    words = content_words(texts)
    holders = {word: documents_with_words(catalogue, _variants(word), MOST) for word in words}
    if not any(holders.values()):
        return Evidence({}, words)
    count = count_documents(catalogue)
    weights = {word: math.log((count + 1) / (len(found) + 0.5)) for word, found in holders.items()}
    total = sum(weight for weight in weights.values() if weight > 0)
    shares: dict[int, float] = {}
    for word, found in holders.items():
        if len(found) > MOST or weights[word] <= 0:
            continue
        for document in found:
            shares[document] = shares.get(document, 0.0) + weights[word] / total
    return Evidence(shares, words)


def _variants(word: str) -> str:
    """The word and its plain plural or singular, as an FTS5 query."""
    forms = [word, word + "s"]
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        forms.append(word[:-1])
    return " OR ".join(match_phrase(form) for form in forms if len(form) > 1 or form.isdigit())
