"""Many queries against many rows: one matrix product a block of rows, and which rows may be among the best.

The product runs several times as fast as comparing query by query, but it is not what the exact index says of a row:
where it multiplies the vectors (widened from float16 once for all queries) it adds up in another order, and where it
multiplies codes of one byte a number (`code_products`) these say the vectors only roughly. Both tell how far off they
are at most. So nothing is answered from here: for each query this gives every row that can be among its best, and the
exact index scores those again.

The sum of n products of floats is off by at most γ·Σ|q·v| ≤ γ·‖q‖·‖v‖, γ = n·u / (1 − n·u), u = 2⁻²⁴, whatever the
order (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Two such sums of one row differ by twice
that at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.store.local.vector_index.base import Floats, Matrix, Rows

Doubles = npt.NDArray[np.float64]

SHARED_BY = 32
"""So many queries at least make up for widening every row (measured at 896 dimensions)."""
ROWS = 16_384
"""Fewer rows than this are compared query by query sooner than put into products."""
PAIRS = 1 << 19
"""Queries of one product, times ``keep``: what comes into question takes 12 MB, and 200 MB where nearly all ties."""
QUERIES = 1024
"""Queries of one product at most: with 4,096 rows their scores take 16 MB."""
CROWDED = 16
"""A query is given up here when many rows of nearly one score fill the memory of so many times ``keep`` rows each,"""
CROWD = 4096
"""or of so many rows, where that is more."""

LARGEST = 1e37
"""Of a product of lengths, so that no score overflows."""


@dataclass(frozen=True, eq=False)
class Compared:
    """A block of ``rows``, int64 (b,), compared with q queries.

    What the exact index says of query j and row i lies within ``error[j]`` of ``raw[i, j] · unit[j] + offset[j]``.
    ``raw`` is float32 or int32, (b, q); the others are float64, (q,), the units above 0.
    """

    rows: Rows
    raw: npt.NDArray[Any]
    unit: Doubles
    offset: Doubles
    error: Doubles


Likely = tuple[Doubles, Rows]
"""What some rows score at most, and the rows."""
Compare = Callable[[Floats], Iterable[Compared | None]]
"""Compares queries, float32 (q, dim), with all rows, block by block; ``None``: something is too large for that."""


def is_worth_it(queries: int, keep: int, rows: int) -> bool:
    """Whether products find ``keep`` of so many rows for so many queries sooner than looking query by query."""
    return queries >= SHARED_BY and rows >= ROWS and 8 * keep <= rows and SHARED_BY * keep <= PAIRS


def may_be_best(compare: Compare, queries: Floats, keep: int) -> Iterator[Likely | None]:
    """For each of ``queries``, float32 (q, dim), what the rows that may be among its ``keep`` best score at most, and
    the rows.

    ``compare`` is called for some of the queries after the other. ``None`` where too many rows come into question to
    list them, or where something is too large to be compared.
    """
    step = min(QUERIES, max(1, PAIRS // keep))
    for start in range(0, len(queries), step):
        yield from _of_product(compare, queries[start : start + step], keep)


def _of_product(compare: Compare, queries: Floats, keep: int) -> Iterable[Likely | None]:
    pool = _Pool(len(queries), keep)
    for block in compare(queries):
        if block is None:
            return [None] * len(queries)
        pool.add(block)
    return pool.rows()


def compare_vectors(blocks: Callable[[], Iterable[tuple[Rows, Matrix]]]) -> Compare:
    """Compares vectors. ``blocks``: gives numbers of rows, int64 (b,), and the rows, float16 (b, dim); called again
    for each product.
    """

    def compare(queries: Floats) -> Iterator[Compared | None]:
        terms = queries.shape[1]
        lengths = np.sqrt(np.einsum("ij,ij->i", queries, queries, dtype=np.float64))
        units, offsets = np.ones(len(queries)), np.zeros(len(queries))
        room = np.empty((0, terms), dtype=np.float32)
        for rows, vectors in blocks():
            room = room if len(room) >= len(vectors) else np.empty(vectors.shape, dtype=np.float32)
            wide = room[: len(vectors)]
            np.copyto(wide, vectors)
            longest = float(np.einsum("ij,ij->i", wide, wide).max(initial=0.0)) ** 0.5
            if not lengths.max(initial=0.0) * longest < LARGEST:  # nor NaN: such have no place in an order
                yield None
                return
            error = 2 * (gamma(terms) * lengths * longest + terms * 2.0**-149)  # the last where products underflow
            yield Compared(rows, wide @ queries.T, units, offsets, error)

    return compare


def gamma(terms: int) -> float:
    """The largest relative error of a sum of so many products, with some room for lengths that are rounded too."""
    return 1.01 * terms * 2.0**-24 / (1 - terms * 2.0**-24)


class _Pool:
    """The pairs of query and row that still come into question."""

    def __init__(self, queries: int, keep: int) -> None:
        self._keep, self._crowd = keep, max(CROWDED * keep, CROWD)
        self._best = np.full((queries, keep), -np.inf)
        """What the ``keep`` best rows of each query so far score at least, the least of them first."""
        self._floors = np.full(queries, -np.inf)
        self._crowded = np.zeros(queries, dtype=bool)
        self._parts: list[tuple[Rows, Rows, Doubles]] = []
        """Queries, rows, and what they score at most."""

    def add(self, block: Compared) -> None:
        """Takes in a block: of each query, the rows that may score as much as its best so far."""
        if not self._parts:
            high = block.raw
            if len(high) > self._keep:
                high = np.partition(high, len(high) - self._keep, axis=0)[-self._keep :]
            self._raise_floors((high * block.unit + block.offset - block.error).T)
        taken = np.flatnonzero(block.raw >= _raw_floors(block, self._floors))
        places, which = np.divmod(taken, len(self._floors))
        scores = block.raw.ravel()[taken] * block.unit[which] + block.offset[which]
        if self._parts and len(taken):
            self._raise_floors(self._by_query(which, scores - block.error[which]))
        most = scores + block.error[which]
        keep = most >= self._floors[which]
        self._parts.append((which[keep], block.rows[places[keep]], most[keep]))
        if sum(len(part[0]) for part in self._parts) > self._crowd * len(self._floors):
            self._thin_out()

    def _by_query(self, which: Rows, scores: Doubles) -> Doubles:
        """One row a query, filled up with −∞."""
        order = _by_number(which)
        which, scores = which[order], scores[order]
        counts = np.bincount(which, minlength=len(self._floors))
        filled = np.full((len(self._floors), int(counts.max())), -np.inf)
        filled[which, np.arange(len(which)) - (np.cumsum(counts) - counts)[which]] = scores
        return filled

    def _raise_floors(self, at_least: Doubles) -> None:
        both = np.concatenate([self._best, at_least], axis=1)
        self._best = np.partition(both, both.shape[1] - self._keep, axis=1)[:, -self._keep :]
        self._floors = np.where(self._crowded, np.inf, self._best[:, 0])

    def _thin_out(self) -> None:
        which, rows, most = self._together()
        self._crowded |= np.bincount(which, minlength=len(self._best)) > self._crowd // 2
        self._floors[self._crowded] = np.inf
        keep = ~self._crowded[which]
        self._parts = [(which[keep], rows[keep], most[keep])]

    def _together(self) -> tuple[Rows, Rows, Doubles]:
        """All pairs that still come into question, by query, as they came."""
        which, rows, most = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        keep = np.flatnonzero(most >= self._floors[which])
        order = keep[_by_number(which[keep])]
        return which[order], rows[order], most[order]

    def rows(self) -> Iterator[Likely | None]:
        """For each query what its rows score at most, and the rows; ``None`` where they were too many."""
        which, rows, most = self._together()
        stops = np.searchsorted(which, np.arange(1, len(self._best)))
        for some, scores, crowded in zip(np.split(rows, stops), np.split(most, stops), self._crowded, strict=True):
            yield None if crowded else (scores, some)


def _by_number(which: Rows) -> Rows:
    """The order that sorts queries by their numbers, each as they came."""
    return np.argsort(which.astype(np.int16), kind="stable")  # of numbers this short, it is a radix sort


def _raw_floors(block: Compared, floors: Doubles) -> npt.NDArray[Any]:
    """What a number of ``raw`` must reach for its row to score up to ``floors``, (q,), or a little less."""
    low, kind = (floors - block.error - block.offset) / block.unit, block.raw.dtype
    if kind == np.float32:
        return np.asarray(np.nextafter(low.astype(np.float32), np.float32(-np.inf)))
    limits = np.iinfo(kind)
    return np.asarray(np.clip(np.floor(low) - 1, limits.min, limits.max).astype(kind))
