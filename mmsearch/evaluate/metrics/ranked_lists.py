"""Measures of one ranked list.

A ranked list holds items best first, each at most once; ``relevant`` are the items that answer the query,
whether the list has them or not. A query without any relevant item has no recall and no precision worth a
number: leave it out and say how many were left out. The measures refuse it with a ``UsageError``.

Names follow trec_eval, except that *hit@k* is at least one relevant item among the first k and *recall@k* is
the fraction of the relevant ones found there. Papers on image–text retrieval, and CLIP_benchmark, print
hit@k under the name R@k.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

from mmsearch.core.errors import UsageError

Item = TypeVar("Item", bound=Hashable)


def recall_at_k(ranked: Sequence[Item], relevant: Collection[Item], k: int) -> float:
    """The fraction of the relevant items that is among the first ``k`` (trec_eval ``recall.k``)."""
    return sum(_found(ranked, relevant, k)) / len(set(relevant))


def hit_at_k(ranked: Sequence[Item], relevant: Collection[Item], k: int) -> float:
    """1.0 if any relevant item is among the first ``k``, else 0.0 (trec_eval ``success.k``).

    CLIP_benchmark calls the mean of this over queries recall@k.
    """
    return float(any(_found(ranked, relevant, k)))


def precision_at_k(ranked: Sequence[Item], relevant: Collection[Item], k: int) -> float:
    """The fraction of the first ``k`` places that hold a relevant item (trec_eval ``P.k``).

    The divisor is ``k`` also where the list is shorter: an empty place is not a relevant item.
    """
    return sum(_found(ranked, relevant, k)) / k


def first_relevant_rank(ranked: Sequence[Item], relevant: Collection[Item]) -> int | None:
    """The place, from 1, of the first relevant item; ``None`` if the list has none."""
    found = _found(ranked, relevant, None)
    return found.index(True) + 1 if True in found else None


def reciprocal_rank(ranked: Sequence[Item], relevant: Collection[Item]) -> float:
    """1 / place of the first relevant item, 0.0 without one (trec_eval ``recip_rank``); its mean is MRR."""
    rank = first_relevant_rank(ranked, relevant)
    return 0.0 if rank is None else 1.0 / rank


def average_precision(ranked: Sequence[Item], relevant: Collection[Item], k: int | None = None) -> float:
    """Sum of the precisions at the places of the relevant items, over the number of all relevant ones.

    trec_eval ``map``, or ``map_cut.k``: relevant items that the list (or its first ``k``) lacks count 0. The
    mean over queries is mAP.
    """
    found = np.array(_found(ranked, relevant, k), dtype=np.float64)
    places = np.arange(1, len(found) + 1)
    return float(np.sum(found * np.cumsum(found) / places)) / len(set(relevant))


def ndcg(
    ranked: Sequence[Item],
    grades: Mapping[Item, float],
    k: int | None = None,
    gain: Literal["linear", "exponential"] = "linear",
) -> float:
    """Normalised discounted cumulative gain: DCG over the DCG of the best possible list.

    DCG = Σ gain(grade at place i) / log2(i + 1), i from 1, over the first ``k`` places of each list (all of
    them for ``None``). Items without a grade, or with one of 0 or less, gain nothing.

    ``linear``: gain = grade (Järvelin and Kekäläinen, ACM TOIS 2002); what trec_eval, pytrec_eval and ranx
    ``ndcg`` compute. ``exponential``: gain = 2^grade − 1 (Burges et al., ICML 2005); ranx ``ndcg_burges``.
    With grades 0 and 1 both are equal.
    """
    if gain not in ("linear", "exponential"):
        raise UsageError(f'gain is "{gain}"; expected "linear" or "exponential"')
    positive = {item: float(grade) for item, grade in grades.items() if grade > 0}
    found = _found(ranked, positive, k)
    values = [positive[item] if is_found else 0.0 for item, is_found in zip(ranked, found, strict=False)]
    ideal = sorted(positive.values(), reverse=True)[:k]
    return _dcg(values, gain) / _dcg(ideal, gain)


def _dcg(grades: Sequence[float], gain: str) -> float:
    values = np.asarray(grades, dtype=np.float64)
    gains = values if gain == "linear" else np.exp2(values) - 1.0
    return float(np.sum(gains / np.log2(np.arange(2, len(values) + 2))))


def _found(ranked: Sequence[Item], relevant: Collection[Item], k: int | None) -> list[bool]:
    """For each of the first ``k`` places: does it hold a relevant item?"""
    if k is not None and k < 1:
        raise UsageError(f"k is {k}; expected 1 or more")
    if not relevant:
        raise UsageError("a query without relevant items cannot be measured; leave it out and count it")
    if len(set(ranked)) != len(ranked):
        raise UsageError(f"a ranked list of {len(ranked)} has only {len(set(ranked))} different items")
    wanted = set(relevant)
    return [item in wanted for item in ranked[:k]]
