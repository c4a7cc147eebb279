"""The first answers put in a better order by a reranker, within a budget of time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.core.errors import MmsearchError, UsageError
from mmsearch.core.modalities import has_pictures
from mmsearch.models.rerankers.base import Cost, FloatArray, Reranker, TokenArray
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import Question, load_picture
from mmsearch.query.retrieve import Candidate
from mmsearch.store.base import CachedTokens, NoTokens, Store

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 8
"""Pictures that are looked at between two looks at the clock."""
CAUTION = 1.25
"""A step is begun if so many times what it should take is left."""
LOG = logging.getLogger("mmsearch")
VIDEO_RATE = 15.0
"""Seconds of a video that are read in a second, at least: a frame is reached from the beginning."""


@dataclass(frozen=True)
class Reranking:
    """A reranker and who is told, in a sentence, when an answer was not reranked."""

    reranker: Reranker
    note: Callable[[str], None] = LOG.warning


@dataclass(frozen=True)
class RerankRequest:
    """What to rerank: the first ``depth`` candidates, for ``budget_s`` seconds (``None``: without a limit).

    ``picture_of`` opens a candidate's picture and raises `UsageError` where that cannot be done. ``kept`` saves
    opening it.
    """

    by: Reranking
    depth: int
    budget_s: float | None
    picture_of: Callable[[Candidate], Image]
    kept: CachedTokens = field(default_factory=NoTokens)
    clock: Callable[[], float] = time.monotonic


def reranking_of(question: Question, reranking: Reranking | None) -> Reranking | None:
    """Who reranks the answers to a question: nobody, with a note, where it does not consist of words alone."""
    if reranking is not None and (question.images or not question.texts):
        reranking.note("not reranked: a reranker compares words with pictures, and this question has pictures in it")
        return None
    return reranking


def rerank_candidates(
    reranking: Reranking, store: Store, question: Question, ranked: Sequence[Candidate], options: SearchOptions
) -> list[Candidate]:
    """The candidates of a question in a better order, from kept tokens where there are any, else from the files."""

    def picture_of(one: Candidate) -> Image:
        segment, size = one.segment, reranking.reranker.input_size
        return load_picture(Path(segment.path), size, segment.start_s, segment.ordinal)

    ids = [one.segment.id for one in ranked[: options.rerank_depth]]
    kept = store.tokens(reranking.reranker.spec, ids)
    request = RerankRequest(reranking, options.rerank_depth, options.rerank_budget_s, picture_of, kept)
    return reranked_or_not(request, " ".join(question.texts), ranked)


def reranked_or_not(request: RerankRequest, text: str, ranked: Sequence[Candidate]) -> list[Candidate]:
    """`rerank`, or the first stage's order where the reranker fails: a search has an answer all the same."""
    try:
        return rerank(request, text, ranked)
    except Exception as error:  # a library's error, memory that ran out: whatever it is, there is a ranking already
        kind = "" if isinstance(error, MmsearchError) else f"{type(error).__name__}: "
        request.by.note(f"not reranked: {kind}{error}")
        return list(ranked)


def rerank(request: RerankRequest, text: str, ranked: Sequence[Candidate]) -> list[Candidate]:
    """The first candidates in the order of first stage and reranker together, the others after them.

    A candidate in between that the reranker could not see (a text, an unreadable file) keeps its first-stage score,
    which the scores of the others are brought to the same mean and scale as. Where the budget ends, the depth
    does too: no step is begun that would pass it, judged by what an image has cost so far.
    """
    queue = list(ranked[: request.depth])
    seen, scores = _Run(request, text).through(queue)
    if len(seen) < 2:
        return list(ranked)
    looked_at = queue[: queue.index(seen[-1]) + 1]
    better = sorted(
        [*_moved(request.by.reranker, seen, scores), *(one for one in looked_at if one not in seen)],
        key=lambda one: (-one.total, one.segment.document),
    )
    return [*better, *ranked[len(looked_at) :]]


def _moved(reranker: Reranker, seen: Sequence[Candidate], scores: FloatArray) -> list[Candidate]:
    """Candidates with what the reranker moves them by; mean and spread of their totals stay."""
    totals = np.array([one.total for one in seen], dtype=np.float32)
    mixed = reranker.mixed(totals, scores)
    spread = (float(totals.std()) or 1.0) / (float(mixed.std()) or 1.0)
    places = float(totals.mean()) + spread * (mixed - mixed.mean())
    return [one._replace(rerank=float(place) - one.total) for one, place in zip(seen, places, strict=True)]


class _Run:
    """One question's candidates, looked at and scored a few at a time."""

    def __init__(self, request: RerankRequest, text: str) -> None:
        self.request, self.text = request, text
        # Without a budget the price does not matter, and finding it out costs a look at an image.
        self.cost = Cost(0.0, 0.0) if request.budget_s is None else request.by.reranker.cost()
        self.end = None if request.budget_s is None else request.clock() + request.budget_s
        self.has_looked = False

    def through(self, queue: Sequence[Candidate]) -> tuple[list[Candidate], FloatArray]:
        """Those that could be seen within the budget, in their order, and their scores."""
        seen: list[Candidate] = []
        scores = [np.zeros(0, dtype=np.float32)]
        start = 0
        while start < len(queue):
            part = self._affordable(queue[start : start + CHUNK])
            if not part:
                break
            start += len(part)
            found, tokens = self._look([one for one in part if has_pictures(one.segment.modality)])
            if found:
                seen += found
                scores.append(self._score(tokens))
        if start < len(queue) and len(seen) < 2:
            price = self._price(queue[start])
            self.request.by.note(
                f"not reranked: a picture takes {price:.2g} s here, the budget is {self.request.budget_s:g} s"
            )
        return seen, np.concatenate(scores)

    def _affordable(self, part: Sequence[Candidate]) -> Sequence[Candidate]:
        """As many of ``part`` as half of the time left suffices for: what they cost is an estimate. At least one,
        if all of it suffices for that; no more than one before a picture of this question has told its price.
        """
        if self.end is None:
            return part
        left = self.end - self.request.clock()
        count, total = 0, 0.0
        for one in part:
            total += CAUTION * self._price(one)
            if total > (left / 2 if count else left):
                break
            count += 1
            if not self.has_looked and self._must_look(one):
                break
        return part[:count]

    def _must_look(self, one: Candidate) -> bool:
        return has_pictures(one.segment.modality) and one.segment.id not in self.request.kept.place

    def _price(self, one: Candidate) -> float:
        """Seconds that a candidate should take."""
        if not has_pictures(one.segment.modality):
            return 0.0
        if not self._must_look(one):
            return self.cost.score
        return self.cost.look + self.cost.score + (one.segment.start_s or 0.0) / VIDEO_RATE

    def _look(self, part: Sequence[Candidate]) -> tuple[list[Candidate], TokenArray]:
        """Those whose tokens are kept or can be made, in their order, and the tokens."""
        reranker, kept = self.request.by.reranker, self.request.kept
        began = self.request.clock()
        at_hand = [one for one in part if not self._must_look(one)]
        pictures = [(one, shown) for one in part if self._must_look(one) and (shown := self._picture(one))]
        parts = [kept.read([kept.place[one.segment.id] for one in at_hand])] if at_hand else []
        if pictures:
            parts.append(reranker.image_tokens([shown for _, shown in pictures]))
        missed = len(part) - len(at_hand)
        if missed:
            took = self.request.clock() - began - sum(one.segment.start_s or 0.0 for one in part) / VIDEO_RATE
            self.cost = Cost(max(took / missed, 0.7 * self.cost.look), self.cost.score)
            self.has_looked = True
        found = [*at_hand, *(one for one, _ in pictures)]
        if not found:
            return [], np.zeros((0, *reranker.spec.token_shape), dtype=np.float16)
        tokens = np.concatenate(parts)
        order = sorted(range(len(found)), key=lambda i: part.index(found[i]))
        return [found[i] for i in order], tokens[order]

    def _score(self, tokens: TokenArray) -> FloatArray:
        began = self.request.clock()
        scores = self.request.by.reranker.score_tokens(self.text, tokens)
        took = (self.request.clock() - began) / len(tokens)
        self.cost = Cost(self.cost.look, max(took, 0.7 * self.cost.score))
        return scores

    def _picture(self, one: Candidate) -> Image | None:
        try:
            return self.request.picture_of(one)
        except UsageError:  # gone or damaged since it was indexed
            return None
