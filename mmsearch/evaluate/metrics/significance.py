"""How sure one may be of a figure: statistics over queries, one number a query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError

Floats = npt.NDArray[np.float64]
Numbers = Sequence[float] | npt.NDArray[np.generic]


def checked(values: Numbers, name: str) -> Floats:
    """``values`` as float64, (queries,); refuses other shapes, none at all, and NaN."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or np.isnan(numbers).any():
        raise UsageError(f"{name} have shape {numbers.shape}; expected one number a query, at least one, no NaN")
    return numbers


def median_rank(ranks: Numbers) -> float:
    """The median place of the first relevant item; give ``math.inf`` for a query that did not find any.

    With an even number of queries the mean of the two middle places.
    """
    return float(np.median(checked(ranks, "ranks")))


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval: ``low`` ≤ true value ≤ ``high`` with confidence ``level``."""

    estimate: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class RunComparison:
    """Two runs over the same queries. ``difference`` is mean(a) − mean(b) with its interval.

    ``p_value`` is two-sided, from ``permutation_test``; ``wins``, ``draws`` and ``losses`` count queries on
    which a is better, equal and worse.
    """

    difference: Interval
    p_value: float
    wins: int
    draws: int
    losses: int


Statistic = Callable[[Floats], Floats]
"""Rows of resampled values, (samples, queries), to one number a row, (samples,)."""


def _row_means(rows: Floats) -> Floats:
    means: Floats = rows.mean(axis=1)
    return means


def bootstrap_interval(
    values: Numbers,
    statistic: Statistic = _row_means,
    level: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over queries (Efron and Tibshirani, Introduction to the Bootstrap, 1993, ch. 13).

    ``values`` is one number a query, (queries,). The queries are drawn with replacement ``samples`` times;
    the interval runs from the (1 − level) / 2 to the (1 + level) / 2 quantile of ``statistic`` over the
    draws. The same seed gives the same interval. It says how much the figure would vary over other queries
    of the same kind, nothing about another gallery. With under 30 queries it is too narrow.
    """
    numbers = checked(values, "values")
    if not 0 < level < 1 or samples < 1:
        raise UsageError(f"level {level} and {samples} samples; expected 0 < level < 1 and 1 sample or more")
    random = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            statistic(numbers[random.integers(0, len(numbers), (count, len(numbers)))])
            for count in _chunks(samples, len(numbers))
        ]
    )
    # An order statistic, not an interpolation, so that infinite ranks give infinity and not NaN.
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Interval(float(statistic(numbers[None, :])[0]), float(low), float(high), level)


def permutation_test(
    a: Numbers,
    b: Numbers,
    samples: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value of the paired randomisation test on the mean difference (Fisher, 1935).

    Under the null hypothesis the two runs are exchangeable query by query, so every sign of every difference
    is as likely as the other; p is how often |mean| is at least as large as the one seen (for retrieval:
    Smucker, Allan and Carterette, CIKM 2007). All sign patterns are counted where there are no more than
    ``samples``; else ``samples`` random ones, with the one seen counted in: p = (count + 1) / (samples + 1),
    never 0 (Phipson and Smyth, 2010).
    """
    if samples < 1:
        raise UsageError(f"{samples} samples; expected 1 or more")
    differences = _differences(a, b)
    changed = differences[differences != 0]
    if not len(changed):
        return 1.0
    # Sums that are equal on paper may differ by rounding; they must count as equal.
    seen = abs(float(changed.sum())) - 1e-9 * float(np.abs(changed).sum())
    if len(changed) <= 60 and 2 ** len(changed) <= samples:
        patterns = np.arange(2 ** len(changed))[:, None] >> np.arange(len(changed)) & 1
        return float(np.mean(np.abs((2.0 * patterns - 1.0) @ changed) >= seen))
    random = np.random.default_rng(seed)
    extreme = 0
    for count in _chunks(samples, len(changed)):
        signs = 2.0 * random.integers(0, 2, (count, len(changed))) - 1.0
        extreme += int(np.count_nonzero(np.abs(signs @ changed) >= seen))
    return (extreme + 1) / (samples + 1)


def compare_runs(
    a: Numbers,
    b: Numbers,
    level: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> RunComparison:
    """Is run ``a`` better than run ``b``? One number a query each, in the same order of queries.

    The interval of the difference is the paired bootstrap: a query that is drawn brings both its values.
    """
    differences = _differences(a, b)
    return RunComparison(
        difference=bootstrap_interval(differences, level=level, samples=samples, seed=seed),
        p_value=permutation_test(a, b, samples, seed),
        wins=int(np.count_nonzero(differences > 0)),
        draws=int(np.count_nonzero(differences == 0)),
        losses=int(np.count_nonzero(differences < 0)),
    )


def _differences(a: Numbers, b: Numbers) -> Floats:
    first, second = checked(a, "a"), checked(b, "b")
    if len(first) != len(second):
        raise UsageError(f"a has {len(first)} queries and b {len(second)}; a paired test needs the same ones")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UsageError("a paired test needs finite numbers; give a query that found nothing 0, not infinity")
    return first - second


def _chunks(samples: int, width: int, cells: int = 4_000_000) -> list[int]:
    """``samples`` split into parts whose rows of ``width`` have at most ``cells`` numbers together."""
    size = max(1, min(samples, cells // width))
    return [size] * (samples // size) + ([samples % size] if samples % size else [])
