"""Do two gradings of the same things agree in their order? Kendall's tau, with ties."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError
from mmsearch.evaluate.metrics.significance import Numbers, checked

Integers = npt.NDArray[np.int64]


def kendall_tau(
    x: Numbers,
    y: Numbers,
    variant: Literal["b", "c"] = "b",
) -> float:
    """Kendall's rank correlation of two gradings of the same n things, −1 to 1, with ties.

    P and Q count pairs ordered alike and oppositely; T_x and T_y pairs tied in x and in y; N = n(n − 1)/2.
    ``b``: (P − Q) / √((N − T_x)(N − T_y)) (Kendall, Biometrika 1945). ``c``: 2(P − Q) / (n² (m − 1)/m), m the
    smaller of the numbers of different values in x and y (Stuart, Biometrika 1953): for scales of different
    length; the one of CLIPScore's Flickr8k-Expert table, which prints it times 100. O(n log² n).
    """
    xs, ys = _ranks(checked(x, "x")), _ranks(checked(y, "y"))
    if len(xs) != len(ys):
        raise UsageError(f"x has {len(xs)} grades and y {len(ys)}; expected one each for every thing")
    if xs.max() == 0 or ys.max() == 0:
        raise UsageError("one of the gradings gives everything the same grade; its rank correlation is undefined")
    order = np.lexsort((ys, xs))
    opposite = _inversions(ys[order])
    count = len(xs)
    pairs = count * (count - 1) // 2
    tied_x, tied_y = _tied_pairs(xs), _tied_pairs(ys)
    tied_both = _tied_pairs(_ranks(xs * (ys.max() + 1) + ys))
    surplus = pairs - tied_x - tied_y + tied_both - 2 * opposite
    if variant == "b":
        return surplus / math.sqrt((pairs - tied_x) * (pairs - tied_y))
    if variant == "c":
        levels = min(int(xs.max()), int(ys.max())) + 1
        return 2 * surplus * levels / (count * count * (levels - 1))
    raise UsageError(f'variant is "{variant}"; expected "b" or "c"')


def _ranks(values: npt.NDArray[np.generic]) -> Integers:
    """Dense ranks from 0: equal values, equal ranks."""
    ranks: Integers = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return ranks


def _tied_pairs(ranks: Integers) -> int:
    counts = np.bincount(ranks)
    return int(np.sum(counts * (counts - 1) // 2))


def _inversions(ranks: Integers) -> int:
    """Pairs i < j with ranks[i] > ranks[j].

    Such a pair agrees in some leading bits and then has 1 before 0. So: for each bit, among the numbers that
    agree in all higher bits, kept in their order, count the ones before each zero.
    """
    total = 0
    for bit in reversed(range(int(ranks.max()).bit_length())):
        ranks = ranks[np.argsort(ranks >> (bit + 1), kind="stable")]
        groups, ones = ranks >> (bit + 1), (ranks >> bit) & 1
        ones_before = np.cumsum(ones) - ones
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        group_start = np.repeat(starts, np.diff(starts, append=len(ranks)))
        total += int(np.sum((ones_before - ones_before[group_start])[ones == 0]))
    return total
