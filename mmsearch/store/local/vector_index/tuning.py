"""Tunes a vector index to a recall target, on the kind of query that will be asked.

Text queries lie outside the distribution of the image vectors, and an index that finds 95 % of the neighbours
of images may find 80 % of those of texts. So each kind is tuned on its own queries, and what is reported was
measured on queries that the choice of parameters never saw.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import VectorError
from mmsearch.store.local.recipes.base import Recipe
from mmsearch.store.local.vector_index.ann import AnnIndex
from mmsearch.store.local.vector_index.base import Floats, Neighbours, check_k, check_queries
from mmsearch.store.local.vector_index.exact import ExactIndex

QueryKind = Literal["text", "image"]

FEWEST_QUERIES = 40
"""With fewer queries, half of them held out, a recall would be a guess."""

EXACT_SECONDS = 3.0
"""Timing exact search takes hardly longer than this: of tens of millions of vectors, three queries do."""

TIMED_QUERIES = 100
"""Queries timed one by one, on one thread, for every setting that reaches the target."""

PAYS = 2.0
"""How many times faster than exact search an index must be to be worth its file and its upkeep."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds a query, asked one at a time on one thread: median, 95th and 99th percentile."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Tuned:
    """Search parameters for one kind of query, and what they gave on ``queries`` held-out queries.

    ``recall`` is recall@``k`` against exact search, between ``recall_low`` and ``recall_high`` with 95 %
    confidence. ``reached`` says whether the target was met on the queries used for choosing; otherwise these
    are the parameters that found most. ``exact`` is the latency of exact search on the same queries.
    """

    recipe: str
    kind: QueryKind
    k: int
    target: float
    reached: bool
    parameters: Mapping[str, int]
    recall: float
    recall_low: float
    recall_high: float
    queries: int
    latency: Latency
    exact: Latency

    @property
    def pays(self) -> bool:
        """Whether the index reached its target at least `PAYS` times faster than exact search."""
        return self.reached and self.latency.p50_ms * PAYS <= self.exact.p50_ms


def tune(
    index: AnnIndex,
    queries: npt.ArrayLike,
    k: int,
    target: float,
    *,
    also: Sequence[npt.ArrayLike] = (),
    kind: QueryKind = "text",
    exact: ExactIndex | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> Tuned:
    """The fastest setting of the recipe's grid that reaches ``target`` recall@``k`` on ``queries``.

    ``queries``, float32 (q, dim), are of one ``kind``; a random half chooses, the other half reports. A
    setting counts as reaching the target when its mean recall does, less one standard error. ``also`` are further
    sets of queries of this kind, drawn in other ways: a setting must reach the target on each set, and what is
    reported is the set that it serves worst.

    Raises `VectorError` for fewer than 40 queries in a set or a target outside 0 … 1.
    """
    sets, k = [check_queries(one, index.dim) for one in (queries, *also)], check_k(k)
    for one in sets:
        if len(one) < FEWEST_QUERIES:
            raise VectorError(f"{len(one)} {kind} queries were given; tuning needs at least {FEWEST_QUERIES}")
    if not 0 < target <= 1:
        raise VectorError(f"the recall target is {target}; it lies above 0 and up to 1")
    exact = exact or ExactIndex(index.matrix)
    random = np.random.default_rng(seed)
    shuffled = [one[random.permutation(len(one))] for one in sets]
    choosing = [(one[::2], exact.search(one[::2], k, threads=threads)) for one in shuffled]
    parameters, reached = _choose(index, choosing, k, target, threads)
    reports = []
    for held_out in (one[1::2] for one in shuffled):
        found = index.search(held_out, k, parameters=parameters, threads=threads)
        reports.append((recall_of(found, exact.search(held_out, k, threads=threads)), held_out))
    recalls, held_out = min(reports, key=lambda report: float(report[0].mean()))
    low, high = confidence(recalls, k)
    return Tuned(
        recipe=index.recipe.name,
        kind=kind,
        k=k,
        target=target,
        reached=reached,
        parameters=parameters,
        recall=float(recalls.mean()),
        recall_low=low,
        recall_high=high,
        queries=len(held_out),
        latency=latency_of(lambda q: index.search(q, k, parameters=parameters, threads=1), held_out),
        exact=latency_of(lambda q: exact.search(q, k, threads=1), held_out[:20], EXACT_SECONDS),
    )


def _choose(
    index: AnnIndex, sets: Sequence[tuple[Floats, list[Neighbours]]], k: int, target: float, threads: int | None
) -> tuple[dict[str, int], bool]:
    """The fastest parameters that reach the target on every set of queries with their true neighbours.

    Where none do: those whose lowest recall of a set is highest, and False.
    """
    best: tuple[float, dict[str, int]] | None = None
    most: tuple[float, dict[str, int]] = (-1.0, index.recipe.defaults())
    timed = sets[0][0][:TIMED_QUERIES]
    for column in _columns(index.recipe):
        if best and latency_of(_searcher(index, k, column[0]), timed).p50_ms >= best[0]:
            continue  # even its quickest setting is no quicker than what reaches the target
        previous = -1.0
        for parameters in column:
            recalls = [
                recall_of(index.search(queries, k, parameters=parameters, threads=threads), truth)
                for queries, truth in sets
            ]
            mean = min(float(one.mean()) for one in recalls)
            most = max(most, (mean, parameters), key=lambda pair: pair[0])
            if all(float(one.mean()) - float(one.std()) / math.sqrt(len(one)) >= target for one in recalls):
                took = latency_of(_searcher(index, k, parameters), timed).p50_ms
                if best is None or took < best[0]:
                    best = (took, parameters)
                break
            if mean <= previous:  # more re-scoring does not help here: the candidates are missing
                break
            previous = mean
    return (most[1], False) if best is None else (best[1], True)


def _searcher(index: AnnIndex, k: int, parameters: Mapping[str, int]) -> Callable[[Floats], object]:
    return lambda query: index.search(query, k, parameters=parameters, threads=1)


def _columns(recipe: Recipe) -> Iterator[list[dict[str, int]]]:
    """The grid, one column for each setting of the other parameters: ``k_factor`` ascending inside it."""
    others = [p for p in recipe.parameters if p.name != "k_factor"]
    factors = next((p.grid for p in recipe.parameters if p.name == "k_factor"), ())
    for values in itertools.product(*(p.grid for p in others)):
        fixed = {p.name: v for p, v in zip(others, values, strict=True)}
        yield [{**fixed, "k_factor": factor} for factor in factors] or [fixed]


def recall_of(found: Sequence[Neighbours], truth: Sequence[Neighbours]) -> npt.NDArray[np.float64]:
    """Recall of each query, float64 (q,): the share of its true neighbours that were found.

    Scores of both sides are exact, so a row counts when it scores no less than the last true neighbour: rows
    that tie with it are as right as it is. A query without true neighbours has recall 1.
    """
    return np.array(
        [float((f.scores >= t.scores[-1]).sum()) / len(t) if len(t) else 1.0 for f, t in zip(found, truth, strict=True)]
    )


def confidence(recalls: npt.NDArray[np.float64], k: int) -> tuple[float, float]:
    """The 95 % interval of the mean of per-query ``recalls`` (q,): Wilson's score interval (1927).

    Neighbours of one query are found or missed together, so they are not k independent trials: the number of
    trials is p(1−p) / var(mean), held between q and q·k.
    """
    q, p, z = len(recalls), float(recalls.mean()), 1.96
    spread = float(recalls.var()) / q
    trials = q if spread == 0 else min(max(p * (1 - p) / spread, q), q * k)
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def latency_of(search: Callable[[Floats], object], queries: Floats, seconds: float = math.inf) -> Latency:
    """The latency of ``search`` on ``queries`` (q, dim), each asked alone as (1, dim), after one to warm up.

    After ``seconds`` no more are asked, but three in any case.
    """
    search(queries[:1])
    took: list[float] = []
    end = time.perf_counter() + seconds
    for i in range(len(queries)):
        if i >= 3 and time.perf_counter() > end:
            break
        start = time.perf_counter()
        search(queries[i : i + 1])
        took.append((time.perf_counter() - start) * 1000)
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    return Latency(float(p50), float(p95), float(p99))
