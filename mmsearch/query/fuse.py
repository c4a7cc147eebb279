"""What is written about documents: file names, folders, captions, descriptions, text passages, text in pictures.

Each word of a query weighs log((n + 1) / (documents that have it + 0.5)), its inverse document frequency. A
document's share is the weight of the words it has over the weight of all words; a word that no document has
weighs most, because what the query is about may only be in the pictures. Words that were read in a picture or a
video frame count for that frame, beside those that are written about the whole document.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.core.letters import has_tokens, is_spaceless, lines_with, tokens_of, words_of
from mmsearch.query.context import Context
from mmsearch.query.retrieve import Candidate, best_segments, judge
from mmsearch.store.base import FloatArray, Holders, IdArray, Store, scores_of

MOST = 5_000
"""A word that more documents have than this tells too little to be worth their list."""
COMPARED = 2_000
"""Documents with words of the query that are compared with it, the ones with most of them first."""
_SILENT = """
    a an and are as at be by for from had has have he her his in into is it its near no not of off on or our
    out over she some that the their them there these they this to under up was we were what when where
    which while who with you your img dsc jpg jpeg png photo picture image
"""
STOP_WORDS = frozenset(_SILENT.split())
"""Words that tell no document from another: grammar, and what cameras and programs write."""


Words = dict[str, Holders]
"""Who has each of the words that were looked up so far."""


@dataclass(frozen=True)
class Evidence:
    """``shares``: for each document that has any of the words, how much of the query they are, 0 to 1.

    ``read``: the shares of frames, as (document, id of the segment), in which some of the words were read; the share of
    such a document is that of its best frame, and ``written`` that of its other ones.
    """

    shares: Mapping[int, float]
    words: tuple[str, ...]
    written: Mapping[int, float] = field(default_factory=dict)
    read: Mapping[tuple[int, int], float] = field(default_factory=dict)

    def bonus(self, document: int, segment: int, most: float) -> float:
        """What a frame's score rises by: its share squared, so that one word of many decides nothing."""
        share = self.read.get((document, segment), self.written.get(document, 0.0))
        return most * share**2


def content_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of a query that can tell documents apart, plain (see `words_of`)."""
    words = (word for text in texts for word in words_of(text))
    return tuple(dict.fromkeys(word for word in words if word not in STOP_WORDS and _is_long_enough(word)))


def shared_words(words: Iterable[str], text: str) -> tuple[str, ...]:
    """Those of some words, in any of their forms, that a text has."""
    tokens = tokens_of(text)
    return tuple(word for word in words if any(has_tokens(tokens, tokens_of(form)) for form in _forms(word)))


def fuse(
    context: Context, ranked: Sequence[Candidate], need: int, known: Words | None = None
) -> tuple[list[Candidate], float]:
    """Candidates with the documents that words speak for, best first; of the latter, the best ``need``. And down to
    which total none is missing: below it there may be others between them.

    ``ranked``: the ``need`` best for the vector, or all there are. ``known``: what many queries share, see
    `find_evidence`.
    """
    floor = ranked[-1].total if len(ranked) >= need else -math.inf
    evidence = find_evidence(context.store, context.query.question.texts, known) if context.options.words else None
    if evidence is None or not evidence.shares:
        return list(ranked), floor
    strongest = sorted(evidence.shares, key=lambda document: -evidence.shares[document])[:COMPARED]
    theirs = set(strongest)
    others = [one for one in ranked if one.segment.document not in theirs]
    with_words = compared(context, strongest, evidence, context.full_bonus, need)
    if len(with_words) >= need:
        floor = max(floor, with_words[-1].total)
    return best_segments([*others, *with_words]), floor


def compared(
    context: Context, documents: Sequence[int], evidence: Evidence, full_bonus: float, most: int
) -> list[Candidate]:
    """The best of some documents for a query, whether or not it would reach them: ``most`` of them, best first."""
    scored = _Scored.of(context, documents, evidence, full_bonus)
    order = np.lexsort((scored.ids, scored.holders, -scored.totals))
    firsts = order[np.sort(np.unique(scored.holders[order], return_index=True)[1])][:most]
    return best_segments(scored.candidates(context.store, firsts))


def parts_compared(context: Context, document: int, evidence: Evidence, full_bonus: float) -> list[Candidate]:
    """All segments of one document that a query may show, in the order in which they follow each other."""
    scored = _Scored.of(context, [document], evidence, full_bonus)
    return sorted(scored.candidates(context.store, np.arange(len(scored.ids))), key=lambda one: one.segment.ordinal)


class _Scored(NamedTuple):
    """Segments that a query may show, and the parts of their scores: arrays (n,)."""

    holders: IdArray
    ids: IdArray
    cosines: FloatArray
    corrections: FloatArray
    bonuses: FloatArray
    demotions: FloatArray

    @classmethod
    def of(cls, context: Context, documents: Sequence[int], evidence: Evidence, full_bonus: float) -> _Scored:
        store = context.store
        holders, ids = store.segments(documents, context.modalities)
        shows, demotions = judge(context, ids)
        keep = ~shows
        if context.where is not None:
            keep &= np.isin(holders, list(store.matching(holders[keep].tolist(), context.where)))
        holders, ids, demotions = holders[keep], ids[keep], demotions[keep]
        [cosines] = scores_of(store, ids, [context.vector])
        pairs = zip(holders.tolist(), ids.tolist(), strict=True)
        bonuses = np.array([evidence.bonus(*pair, full_bonus) for pair in pairs], dtype=np.float32)
        return cls(holders, ids, cosines, context.corrections(ids), bonuses, demotions)

    @property
    def totals(self) -> FloatArray:
        return self.cosines + self.corrections + self.bonuses + self.demotions

    def candidates(self, store: Store, chosen: npt.NDArray[np.intp]) -> list[Candidate]:
        """Those at the places ``chosen``."""
        places = {(int(self.holders[i]), int(self.ids[i])): i for i in chosen}
        made = []
        for segment in store.fetch(sorted(set(self.ids[chosen].tolist()))):
            if (i := places.get((segment.document, segment.id))) is not None:
                cosine, correction, bonus = (float(v[i]) for v in (self.cosines, self.corrections, self.bonuses))
                made.append(Candidate(segment, cosine, correction, bonus, excluded=float(self.demotions[i])))
        return made


def find_evidence(store: Store, texts: Iterable[str], known: Words | None = None) -> Evidence:
    """Which documents have words of a query in what is written about them, or in their pictures.

    ``known``: what many queries share; words that are not in it are looked up and put there.
    """
    words, known = content_words(texts), {} if known is None else known
    look_up(store, words, known)
    pieces = {word: _pieces(word) for word in words if not known[word].count}
    look_up(store, [piece for of_word in pieces.values() for piece in of_word], known)
    words = tuple(
        dict.fromkeys(
            each for word in words for each in ([p for p in pieces.get(word, ()) if known[p].count] or [word])
        )
    )
    holders = {word: known[word] for word in words}
    if not any(one.count for one in holders.values()):
        return Evidence({}, words)
    count = store.count()
    weights = {word: math.log((count + 1) / (one.count + 0.5)) for word, one in holders.items()}
    total = sum(weight for weight in weights.values() if weight > 0)
    telling = [word for word in words if weights[word] > 0]
    written: dict[int, float] = {}
    for word in telling:
        for document in holders[word].written:
            written[document] = written.get(document, 0.0) + weights[word] / total
    read: dict[tuple[int, int], float] = {}
    for word in telling:
        written_in = set(holders[word].written) if holders[word].read else set()
        for document, segment in holders[word].read:
            so_far = read.setdefault((document, segment), written.get(document, 0.0))
            if document not in written_in:  # or the word would count twice
                read[document, segment] = so_far + weights[word] / total
    shares = dict(written)
    for (document, _), share in read.items():
        shares[document] = max(share, shares.get(document, 0.0))
    return Evidence(shares, words, written, read)


def look_up(store: Store, words: Iterable[str], known: Words) -> None:
    """Adds those of some words that are not ``known`` yet."""
    missing = [word for word in dict.fromkeys(words) if word not in known]
    if missing:
        known.update(zip(missing, store.words([_forms(word) for word in missing], MOST), strict=True))


def _pieces(word: str) -> list[str]:
    """A run of a script without spaces may be several words. Where nobody has it as it is, these stand for it: two
    characters in a row of a script whose characters are syllables or words, four of an alphabet (Thai, Lao, Khmer …).
    """
    if not is_spaceless(word):
        return []
    size = 2 if word[0] >= "\u2e80" else 4
    return [word[at : at + size] for at in range(len(word) - size + 1)] if len(word) > size else []


def lines_read(store: Store, id_: int, words: Iterable[str]) -> str | None:
    """The lines read in a picture that have one of the words; ``None`` where there are none."""
    text = store.lines([id_]).get(id_)
    return None if text is None else "\n".join(lines_with(text, (f for w in words for f in _forms(w)))) or None


def _is_long_enough(word: str) -> bool:
    return len(word) > 1 or word.isdigit() or is_spaceless(word)


def _forms(word: str) -> list[str]:
    if is_spaceless(word):
        return [word]
    forms = [word, word + "s"]
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        forms.append(word[:-1])
    return [form for form in forms if len(form) > 1 or form.isdigit()]
