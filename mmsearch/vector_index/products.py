"""Many queries against many rows: one matrix product a block of rows, and which rows may be among the best.

Rows are widened from float16 once for all queries, and the product runs at the speed of the linear algebra library,
several times that of comparing query by query. It adds up in another order, though, so a score may differ in its last
bits from what the exact index says of the same row. So nothing is answered from here: for each query this gives every
row that can be among its best, and the exact index scores those again.

The sum of n products of floats is off by at most γ·Σ|q·v| ≤ γ·‖q‖·‖v‖, γ = n·u / (1 − n·u), u = 2⁻²⁴, whatever the
order (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Two such sums of one row differ by twice
that at most. So the ``keep`` best rows by one all lie at most four times that below the ``keep``-th best by the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mmsearch.vector_index.base import Floats, Matrix, Rows

SHARED_BY = 32
"""So many queries at least make up for widening every row (measured at 896 dimensions)."""
ROWS = 16_384
"""Fewer rows than this are compared query by query sooner than put into products."""
PAIRS = 1 << 19
"""Queries of one product, times ``keep``: what comes into question takes 10 MB, and 160 MB where nearly all ties."""
QUERIES = 1024
"""Queries of one product at most: with 4,096 rows their scores take 16 MB."""
CROWDED = 16
"""A query is given up here when many rows of nearly one score fill the memory of so many times ``keep`` rows each."""

LARGEST = 1e37
"""Of a product of lengths, so that no score overflows."""


def is_worth_it(queries: int, keep: int, rows: int) -> bool:
    """Whether products find ``keep`` of so many rows for so many queries sooner than looking query by query."""
    return queries >= SHARED_BY and rows >= ROWS and 8 * keep <= rows and SHARED_BY * keep <= PAIRS


def may_be_best(
    blocks: Callable[[], Iterable[tuple[Rows, Matrix]]], queries: Floats, keep: int
) -> Iterator[Rows | None]:
    """For each of ``queries``, float32 (q, dim), the rows that may be among its ``keep`` best, ascending.

    ``blocks``: gives numbers of rows, int64 (b,), and the rows, float16 (b, dim); called again for each product.
    ``None`` where too many rows come into question to list them, or where something is too large to be compared.
    """
    step = min(QUERIES, max(1, PAIRS // keep))
    for start in range(0, len(queries), step):
        yield from _of_product(blocks(), queries[start : start + step], keep)


def _of_product(blocks: Iterable[tuple[Rows, Matrix]], queries: Floats, keep: int) -> Iterable[Rows | None]:
    pool = _Pool(len(queries), keep)
    terms = queries.shape[1]
    lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
    longest = 0.0
    for rows, vectors in blocks:
        wide = vectors.astype(np.float32)
        longest = max(longest, float(np.einsum("ij,ij->i", wide, wide).max(initial=0.0)) ** 0.5)
        if not lengths.max(initial=0.0) * longest < LARGEST:  # nor NaN: such have no place in an order
            return [None] * len(queries)
        slack = 4 * (gamma(terms) * lengths * longest + terms * 2.0**-149)  # the last where products underflow
        pool.add(rows, queries @ wide.T, slack.astype(np.float32))
    return pool.rows()


def gamma(terms: int) -> float:
    """The largest relative error of a sum of so many products, with some room for lengths that are rounded too."""
    return 1.01 * terms * 2.0**-24 / (1 - terms * 2.0**-24)


class _Pool:
    """The pairs of query and row that still come into question."""

    def __init__(self, queries: int, keep: int) -> None:
        self._keep = keep
        self._best = np.full((queries, keep), -np.inf, dtype=np.float32)
        """The ``keep`` best scores of each query so far, the least of them first."""
        self._floors = np.full(queries, -np.inf, dtype=np.float32)
        self._crowded = np.zeros(queries, dtype=bool)
        self._parts: list[tuple[Rows, Rows, Floats]] = []

    def add(self, rows: Rows, scores: Floats, slack: Floats) -> None:
        """Takes in a block: ``scores`` (queries, rows), and how far below the worst of the best still counts."""
        if not self._parts:
            self._raise_floors(scores, slack)
        taken = np.flatnonzero(scores >= self._floors[:, None])
        which, places = np.divmod(taken, scores.shape[1])
        found = scores.ravel()[taken]
        if self._parts and len(taken):
            counts = np.bincount(which, minlength=len(scores))
            new = np.full((len(scores), int(counts.max())), -np.inf, dtype=np.float32)
            new[which, np.arange(len(which)) - (np.cumsum(counts) - counts)[which]] = found
            self._raise_floors(new, slack)
        keep = found >= self._floors[which]
        self._parts.append((which[keep], rows[places[keep]], found[keep]))
        if sum(len(part[0]) for part in self._parts) > CROWDED * self._keep * len(scores):
            self._thin_out()

    def _raise_floors(self, scores: Floats, slack: Floats) -> None:
        both = np.concatenate([self._best, scores], axis=1)
        self._best = np.partition(both, both.shape[1] - self._keep, axis=1)[:, -self._keep :]
        floors = np.nextafter(self._best[:, 0] - slack, np.float32(-np.inf))  # rounding must not lift a floor
        self._floors = np.where(self._crowded, np.float32(np.inf), floors)

    def _thin_out(self) -> None:
        which, rows, found = self._together()
        self._crowded |= np.bincount(which, minlength=len(self._best)) > CROWDED // 2 * self._keep
        self._floors[self._crowded] = np.inf
        keep = ~self._crowded[which]
        self._parts = [(which[keep], rows[keep], found[keep])]

    def _together(self) -> tuple[Rows, Rows, Floats]:
        """All pairs that still come into question, by query and row."""
        which, rows, found = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        keep = np.flatnonzero(found >= self._floors[which])
        order = keep[np.lexsort((rows[keep], which[keep]))]
        return which[order], rows[order], found[order]

    def rows(self) -> Iterator[Rows | None]:
        """For each query its rows, ascending; ``None`` where they were too many."""
        which, rows, _ = self._together()
        stops = np.searchsorted(which, np.arange(1, len(self._best)))
        for some, crowded in zip(np.split(rows, stops), self._crowded, strict=True):
            yield None if crowded else some
