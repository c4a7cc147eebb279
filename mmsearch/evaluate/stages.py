"""What a vector index loses and what a reranker gains, each against the exact first stage, question by question."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmsearch.evaluate.matching import PICTURES, Gallery
from mmsearch.evaluate.metrics import RunComparison, compare_runs, hit_at_k, reciprocal_rank
from mmsearch.evaluate.reading import JudgedQuestion
from mmsearch.models.encoders.base import FloatArray
from mmsearch.query.calibrate.calibration import load_calibration
from mmsearch.query.context import of_kinds
from mmsearch.query.retrieve import FIRST
from mmsearch.store.base import Store

KS = (1, 5, 10)
Placed = Sequence[tuple[JudgedQuestion, dict[str, int]]]
"""Questions with the places of their right answers in the gallery, by name."""


@dataclass(frozen=True)
class Stage:
    """One stage against the exact first stage: mean figures without and with it, and the paired difference.

    ``seconds``: median wall time of a question without and with it, where that was measured.
    """

    before: dict[str, float]
    after: dict[str, float]
    change: dict[str, RunComparison]
    questions: int
    seconds: tuple[float, float] | None = None

    @classmethod
    def of(
        cls, before: Sequence[dict[str, float]], after: Sequence[dict[str, float]],
        seconds: tuple[float, float] | None = None, samples: int = 2000,
    ) -> Stage:  # fmt: skip
        """From one dict a question, figure → number, without and with the stage."""

        def mean(values: Sequence[dict[str, float]], name: str) -> float:
            return float(np.mean([one[name] for one in values]))

        names = list(before[0])
        return cls(
            {name: mean(before, name) for name in names},
            {name: mean(after, name) for name in names},
            {
                name: compare_runs([one[name] for one in after], [one[name] for one in before], samples=samples)
                for name in names
            },
            len(before),
            seconds,
        )


def figures_of(ranked: Sequence[int], places: dict[str, int]) -> dict[str, float]:
    """hit@k and the reciprocal rank of one ranked list of places."""
    relevant = set(places.values())
    return {
        **{f"hit@{k}": float(hit_at_k(list(ranked), relevant, k)) for k in KS},
        "MRR": reciprocal_rank(list(ranked), relevant),
    }


def index_loss(
    store: Store, gallery: Gallery, texts: FloatArray, images: FloatArray, placed: Placed, alpha: float,
    most: int = 2000,
) -> Stage | None:  # fmt: skip
    """The first 10 through the vector index against the first 10 of all, over at most ``most`` questions.

    ``None`` where there is no vector index. Both are corrected for hubness by ``alpha``; the vector index hands over
    as many segments as a search would take from it.
    """
    if store.recipe == "exact":
        return None
    chosen = np.unique(np.linspace(0, len(placed) - 1, min(most, len(placed))).astype(int))
    calibration = load_calibration(store)
    hubness, alphas = calibration.hubness_of(gallery.segments), alpha * calibration.weights(texts)
    document_of = np.repeat(np.arange(len(gallery)), np.diff(gallery.starts, append=len(gallery.segments)))
    order = np.argsort(gallery.segments)
    exact, found = [], []
    for place, neighbours in zip(chosen, store.search(texts[chosen], FIRST, of_kinds(store, PICTURES)), strict=True):
        scores = images @ texts[place] - alphas[place] * hubness
        exact.append(figures_of(_best(scores, document_of, np.arange(len(scores))), placed[place][1]))
        places = order[np.searchsorted(gallery.segments[order], neighbours.ids)]
        found.append(figures_of(_best(scores, document_of, places), placed[place][1]))
    return Stage.of(exact, found)


def _best(scores: FloatArray, document_of: np.ndarray, among: np.ndarray, k: int = 10) -> list[int]:
    """The first ``k`` documents of some segments, best first, ties by place."""
    ranked: dict[int, None] = {}
    for segment in among[np.lexsort((among, -scores[among]))]:
        ranked.setdefault(int(document_of[segment]))
        if len(ranked) == k:
            break
    return list(ranked)


def rerank_gain(
    placed: Placed, rank: Callable[[str, bool], Sequence[int]], most: int, progress: Callable[[int, int], None]
) -> Stage:
    """The results of whole searches with a reranker against those without, over ``most`` questions at most.

    ``rank`` runs one question, without or with the reranker, and returns places in the gallery; the time that it takes
    is what a user waits. ``progress`` is called with the questions done and their number.
    """
    chosen = np.unique(np.linspace(0, len(placed) - 1, min(most, len(placed))).astype(int))
    first_text = placed[int(chosen[0])][0].text
    for with_reranker in (False, True):  # what is loaded at first need is no part of any question
        rank(first_text, with_reranker)
    figures: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number, place in enumerate(chosen.tolist(), start=1):
        question, places = placed[place]
        for with_reranker in (False, True):
            started = time.perf_counter()
            ranked = rank(question.text, with_reranker)
            seconds[with_reranker].append(time.perf_counter() - started)
            figures[with_reranker].append(figures_of(ranked, places))
        progress(number, len(chosen))
    medians = (float(np.median(seconds[False])), float(np.median(seconds[True])))
    return Stage.of(figures[False], figures[True], medians)
