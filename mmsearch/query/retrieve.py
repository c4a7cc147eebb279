"""The best segments of the best documents for one query: the only place that widens a search.

A store gives segments. Some are of the same document, some show what is excluded: then more are searched for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmsearch.query.context import Context
from mmsearch.query.exclusion import judge_excluded
from mmsearch.store.base import FloatArray, IdArray, Nearest, Segment, scores_of

FIRST = 40
"""Segments searched for first: vector indexes are tuned for about so many."""
CORRECTED = 256
"""So many of the nearest segments are put in order by their corrected scores, where search is exact."""
AHEAD = 8
"""Segments fetched beyond the documents needed: some are of the same document."""
FAR = 8.0
"""More than any two scores differ by."""


class Candidate(NamedTuple):
    """A document's best segment. ``total`` is ``cosine`` + ``hubness`` (0 or less) + ``words`` (0 or more), what a
    reranker moved it by, and ``excluded`` (0 or less): the doubt whether it shows what must not show.
    """

    segment: Segment
    cosine: float
    hubness: float
    words: float = 0.0
    rerank: float = 0.0
    excluded: float = 0.0

    @property
    def total(self) -> float:
        """What candidates are ordered by."""
        return self.cosine + self.hubness + self.words + self.rerank + self.excluded

    @property
    def parts(self) -> dict[str, float]:
        """What ``total`` is the sum of."""
        parts = {"similarity": self.cosine, "hubness": self.hubness, "words": self.words}
        more = {"rerank": self.rerank, "excluded": self.excluded}
        return {**parts, **{name: value for name, value in more.items() if value}}


def retrieve(context: Context, need: int, first: Nearest | None = None) -> list[Candidate]:
    """The ``need`` best documents or more, best first, ties by document; fewer only if there are fewer.

    ``first``: the result of the first search, where a batch has it already (`retrieve_first`).
    """
    k, pool, near = need, _pool(context, need), first
    while True:
        judged = _Judged(context)
        if near is None:
            [near] = context.store.search(
                context.vector[None], k, context.where, kind=context.kind, pool=pool, adjust=judged.adjusted
            )
        best = _documents(context, near, need, judged)
        if len(best) >= need or near.is_all:
            return best
        k, pool, near = 4 * k, 4 * pool, None


def retrieve_first(contexts: Sequence[Context], need: int) -> list[Nearest]:
    """The first searches of many queries of one kind, which nothing but modalities restricts, as one; with what each of
    them will fetch first.
    """
    if not contexts:
        return []
    store, pool = contexts[0].store, max(_pool(context, need) for context in contexts)
    vectors = np.stack([context.vector for context in contexts])
    where, kind = contexts[0].where, contexts[0].kind
    found = store.search(vectors, need, where, kind=kind, pool=pool)
    ids: set[int] = set()
    for context, near in zip(contexts, found, strict=True):
        order = _order(near, context.corrections(near.ids))
        ids.update(near.ids[order[: need + AHEAD]].tolist())
    segments: dict[int, list[Segment]] = {id_: [] for id_ in ids}
    for segment in store.fetch(sorted(ids), where):
        segments[segment.id].append(segment)
    return [Nearest(near.ids, near.scores, near.is_all, segments) for near in found]


def _pool(context: Context, need: int) -> int:
    """How many of the nearest segments are looked at first."""
    if context.by_cosine:
        return need
    is_corrected = context.alpha and context.calibration.corrects(context.kind) and context.store.recipe == "exact"
    return max(2 * need + 8, CORRECTED if is_corrected or context.excluded else FIRST)


def _order(near: Nearest, corrections: FloatArray) -> npt.NDArray[np.intp]:
    return np.lexsort((near.ids, -(near.scores + corrections)))


def _documents(context: Context, near: Nearest, need: int, judged: _Judged) -> list[Candidate]:
    """The best segments of the documents that segments are of, best segment first, until ``need`` are there."""
    corrections = context.corrections(near.ids)
    places = _order(near, corrections)
    shows, demotions = judged.of(near.ids)
    places = places[~shows[places]]
    candidates: list[Candidate] = []
    documents: set[int] = set()
    is_fetched = near.segments.keys() >= set(near.ids.tolist())  # many queries share what is fetched first of each
    start, step = 0, len(places) if is_fetched else need + AHEAD
    while start < len(places) and len(documents) < need:
        part = places[start : start + step]
        place_of = dict(zip(near.ids[part].tolist(), part.tolist(), strict=True))
        for segment in _segments(context, list(place_of), near.segments):
            place = place_of[segment.id]
            scores = float(near.scores[place]), float(corrections[place])
            candidates.append(Candidate(segment, *scores, excluded=float(demotions[place])))
            documents.add(segment.document)
        start, step = start + len(part), 2 * step
    return best_segments(candidates)


def _segments(context: Context, ids: Sequence[int], known: Mapping[int, Sequence[Segment]]) -> list[Segment]:
    """Those that are not known are fetched."""
    missing = [id_ for id_ in ids if id_ not in known]
    segments = [segment for id_ in ids if id_ in known for segment in known[id_]]
    return segments + context.store.fetch(missing, context.where) if missing else segments


class _Judged:
    """Which segments show what a query excludes, and what the doubt takes off their scores."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[int, tuple[bool, float]] = {}

    def adjusted(self, ids: IdArray, scores: FloatArray) -> npt.NDArray[np.floating]:
        """Corrected scores; where something is excluded, the nearest come first, without those that show it. What
        follows them is judged where it is reached.
        """
        keys: npt.NDArray[np.floating] = scores + self._context.corrections(ids)
        if not self._context.excluded:
            return keys
        near = np.lexsort((ids, -keys))[:CORRECTED]
        shows, demotions = judge(self._context, ids[near])
        self._known = dict(zip(ids[near].tolist(), zip(shows.tolist(), demotions.tolist(), strict=True), strict=True))
        adjusted = keys.astype(np.float64) - FAR
        adjusted[near] = np.where(shows, -np.inf, keys[near] + demotions)
        return adjusted

    def of(self, ids: IdArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
        """See `judge`."""
        shows, demotions = np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=np.float32)
        if self._context.excluded:
            is_known = np.array([id_ in self._known for id_ in ids.tolist()], dtype=bool)
            pairs = [self._known[id_] for id_ in ids[is_known].tolist()]
            shows[is_known] = [pair[0] for pair in pairs]
            demotions[is_known] = [pair[1] for pair in pairs]
            shows[~is_known], demotions[~is_known] = judge(self._context, ids[~is_known])
        return shows, demotions


def judge(context: Context, ids: IdArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Which segments show something that is excluded, and what the doubt takes off the scores of each."""
    concepts = [*context.excluded, *([] if context.wanted is None or not context.excluded else [context.wanted])]
    scores = scores_of(context.store, ids, [vector for vector, _ in concepts])
    return judge_excluded(scores, len(ids), context.excluded, context.wanted)


def best_segments(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One segment a document, its best; best document first, ties by document."""
    best: dict[int, Candidate] = {}
    for one in sorted(candidates, key=lambda c: (-c.total, c.segment.document, c.segment.ordinal)):
        best.setdefault(one.segment.document, one)
    return list(best.values())
