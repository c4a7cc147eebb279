"""Exact search: every allowed row is scored, straight from the mapped vector file.

FAISS's fp16 scalar quantiser stores a vector as the same little-endian float16 numbers that the vector file
holds. So its scanner, meant for inverted lists, reads the mapped matrix in place: no copy, nothing to build,
and only the pages that are read become resident. The scanner compares in float32 after widening float16,
keeps a heap of the best, honours an id selector, and holds no lock of the interpreter while it runs. Many queries
at once are first narrowed down by matrix products (`products`), and what is left is scored by the same scanner.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mmsearch.system import usable_cores
from mmsearch.vector_index.base import (
    Allowed,
    Floats,
    Matrix,
    Neighbours,
    Rows,
    allowed_rows,
    as_matrix,
    best_first,
    check_k,
    check_queries,
    gather,
    nothing,
)
from mmsearch.vector_index.products import is_worth_it, may_be_best
from mmsearch.vector_index.residency import Residency

BLOCK = 4096
"""Rows that a batch of queries shares at a time: 4 MB of 512-d float16, which stays in the cache."""

RELEASED_BYTES = 16 << 20
"""Bytes that a scan of a large mapped matrix reads before it lets go of them (see `residency`)."""

ROWS_PER_THREAD = 100_000
"""Fewer scored rows than this (about 2.5 ms) are not worth another thread."""


class ExactIndex:
    """Exact inner-product search over ``matrix``, float16 (n, dim), usually a read-only memory map.

    Nothing is copied and nothing is built; the matrix must stay mapped while the index is used. Searching
    changes nothing, so any number of threads may search at once. Another type or shape is a `VectorError`.
    """

    def __init__(self, matrix: npt.NDArray[np.float16]) -> None:
        self._matrix = as_matrix(matrix)
        self._residency = Residency(self._matrix)
        self._codec: Any = faiss.ScalarQuantizer(self.dim, faiss.ScalarQuantizer.QT_fp16)

    def __len__(self) -> int:
        return len(self._matrix)

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self._matrix.shape[1])

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        only: npt.ArrayLike | None = None,
        without: npt.ArrayLike | None = None,
        threads: int | None = None,
    ) -> list[Neighbours]:
        """The ``k`` best rows for each of ``queries``, float32 (q, dim): one `Neighbours` a query.

        Only rows in ``only`` and not in ``without`` (int64 (m,), any order) answer. Each answer has
        ``min(k, allowed rows)`` entries, best first, equal scores by lower row. ``threads`` splits the rows;
        by default it grows with the work up to the cores of this process.

        Raises `VectorError` for queries of another shape or with NaN or infinity, for ``k`` < 1, and for
        negative rows.
        """
        checked = check_queries(queries, self.dim)
        k = check_k(k)
        allowed = allowed_rows(len(self), only, without)
        if not len(checked) or not allowed.count:
            return nothing(len(checked))
        return self.search_allowed(checked, k, allowed, threads)

    def search_allowed(self, queries: Floats, k: int, allowed: Allowed, threads: int | None = None) -> list[Neighbours]:
        """As `search`, for checked ``queries`` and a set of rows that is already known and not empty."""
        k = min(k, allowed.count)
        keep = min(k + 1, allowed.count)
        if threads is None and is_worth_it(len(queries), k, allowed.count):
            return self._search_by_products(queries, k, keep, allowed)
        return self._search_by_scans(queries, k, keep, allowed, threads)

    def _search_by_products(self, queries: Floats, k: int, keep: int, allowed: Allowed) -> list[Neighbours]:
        """What `_search_by_scans` finds, in a fraction of the time: see `mmsearch.vector_index.products`."""
        found: list[Neighbours] = []
        for query, rows in zip(queries, may_be_best(lambda: self._blocks(allowed), queries, k), strict=True):
            if rows is None:
                found += self._search_by_scans(query[None], k, keep, allowed, None)
            else:
                found.append(best_first(self.score(query, self.gather(rows)), rows, k))
        return found

    def _blocks(self, allowed: Allowed) -> Iterator[tuple[Rows, Matrix]]:
        """All allowed rows, a block at a time, with their numbers."""
        if allowed.rows is not None:
            for low in range(0, len(allowed.rows), BLOCK):
                rows = allowed.rows[low : low + BLOCK]
                yield rows, self.gather(rows)
            return
        kept = self._residency.rows_kept(1)
        for low in range(0, len(self), BLOCK):
            high = min(low + BLOCK, len(self))
            if allowed.mask is None:
                yield np.arange(low, high, dtype=np.int64), self._matrix[low:high]
            elif len(rows := low + np.flatnonzero(allowed.mask[low:high])):
                yield rows, self._matrix[rows]
            if high > kept:
                self._residency.release(max(low, kept), high)

    def _search_by_scans(
        self, queries: Floats, k: int, keep: int, allowed: Allowed, threads: int | None
    ) -> list[Neighbours]:
        parts = self._scan(queries, keep, allowed, threads)
        found = [_merge(parts, i, k) for i in range(len(queries))]
        unclear = [] if keep == allowed.count else _ambiguous(parts, found, keep)
        for i in unclear:
            found[i] = self._settle_ties(queries[i : i + 1], k, keep, allowed, threads)
        return found

    def score(self, query: Floats, vectors: Matrix) -> Floats:
        """The score of each of ``vectors``, float16 (m, dim) in C order, for one checked ``query`` (dim,)."""
        part = _Part.empty(1, len(vectors))
        if len(vectors):
            self._scan_block(query[None], vectors, None, 0, part)
        scores = np.empty(len(vectors), dtype=np.float32)
        scores[part.labels[0]] = part.scores[0]
        return scores

    def gather(self, rows: Rows) -> Matrix:
        """A copy of ``rows``, int64 (m,), of the matrix: float16 (m, dim), C order."""
        found = gather(self._matrix, rows)
        self._residency.gathered(len(rows))
        return found

    def _settle_ties(self, query: Floats, k: int, keep: int, allowed: Allowed, threads: int | None) -> Neighbours:
        """Search again with ever larger heaps until every row that ties with the k-th is in them.

        A heap of ``keep`` entries drops rows that tie with its worst in no useful order; copies of one
        vector (the same photo twice) make such ties.
        """
        while True:
            keep = min(4 * keep, allowed.count)
            parts = self._scan(query, keep, allowed, threads)
            found = _merge(parts, 0, k)
            if keep == allowed.count or not _ambiguous(parts, [found], keep):
                return found

    def _scan(self, queries: Floats, keep: int, allowed: Allowed, threads: int | None) -> list[_Part]:
        """The ``keep`` best of each query, from each of several ranges of the rows."""
        n = allowed.count if allowed.rows is not None else len(self)
        # Queries share blocks of rows while they are in the cache. One query has nobody to share with, so it takes
        # all rows at once, or as many as may be resident.
        block = BLOCK if allowed.rows is not None or len(queries) > 1 else max(BLOCK, n)
        if allowed.rows is None and self._residency.is_bounded:
            block = min(block, max(BLOCK, RELEASED_BYTES // self._matrix.strides[0] // 8 * 8))
        if threads is None:
            threads = min(usable_cores(), -(-allowed.count * len(queries) // ROWS_PER_THREAD))
        ranges = list(_ranges(n, max(1, threads)))
        left = self._residency.rows_kept(len(ranges))
        if len(ranges) == 1:
            return [self._scan_range(queries, keep, allowed, ranges[0], block, left)]
        with ThreadPoolExecutor(len(ranges), thread_name_prefix="mmsearch-scan") as pool:
            return list(pool.map(lambda r: self._scan_range(queries, keep, allowed, r, block, left), ranges))

    def _scan_range(self, queries: Floats, keep: int, allowed: Allowed, span: range, block: int, left: int) -> _Part:
        """The ``keep`` best of each query among the rows (or positions in ``allowed.rows``) of ``span``.

        Of the rows that are read in place, only the first ``left`` stay resident.
        """
        part = _Part.empty(len(queries), min(keep, len(span)))
        kept = span.start + left
        bits = None if allowed.mask is None else np.packbits(allowed.mask[span.start : span.stop], bitorder="little")
        for number, low in enumerate(range(span.start, span.stop, block), start=1):
            high = min(low + block, span.stop)
            vectors = self._matrix[low:high] if allowed.rows is None else self.gather(allowed.rows[low:high])
            if bits is None:
                self._scan_block(queries, vectors, None, number, part)
            else:  # a selector knows rows by their labels: it sees every block as the first
                self._scan_block(queries, vectors, bits[(low - span.start) // 8 :], 0, part)
                part.labels[(part.labels >= 0) & (part.labels < 1 << 32)] += number << 32
            if allowed.rows is None and (high - kept) * self._matrix.strides[0] >= RELEASED_BYTES:
                self._residency.release(kept, high)
                kept = high
        if allowed.rows is None and span.stop > kept:
            self._residency.release(kept, span.stop)
        positions = (part.labels >> 32) - 1
        positions *= block
        positions += (part.labels & 0xFFFFFFFF) + span.start
        part.rows = positions if allowed.rows is None else allowed.rows[np.minimum(positions, len(allowed.rows) - 1)]
        return part

    def _scan_block(
        self, queries: Floats, vectors: Matrix, bits: npt.NDArray[np.uint8] | None, number: int, part: _Part
    ) -> None:
        """Let every query see one block; its heap keeps labels ``number << 32 | position in the block``."""
        selector = None if bits is None else faiss.IDSelectorBitmap(len(vectors), faiss.swig_ptr(bits))
        scanner = self._codec.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, True, selector)
        scanner.set_list(number, 0.0)
        codes = faiss.swig_ptr(vectors.view(np.uint8))
        for query, scores, labels in zip(queries, part.scores, part.labels, strict=True):
            scanner.set_query(faiss.swig_ptr(query))
            scanner.scan_codes(len(vectors), codes, None, faiss.swig_ptr(scores), faiss.swig_ptr(labels), len(scores))


@dataclass(eq=False)
class _Part:
    """What one range of rows found: a heap a query, ``scores`` float32 and ``labels`` int64 (q, keep)."""

    scores: Floats
    labels: Rows
    rows: Rows

    @classmethod
    def empty(cls, queries: int, keep: int) -> _Part:
        labels = np.full((queries, keep), -1, dtype=np.int64)
        return cls(np.full((queries, keep), -np.inf, dtype=np.float32), labels, labels)


def _ranges(n: int, parts: int) -> Iterator[range]:
    """0 … n−1 in at most ``parts`` ranges of nearly equal length."""
    size = max(1, -(-n // parts))
    for low in range(0, n, size):
        yield range(low, min(low + size, n))


def _merge(parts: list[_Part], i: int, k: int) -> Neighbours:
    scores = np.concatenate([part.scores[i] for part in parts])
    rows = np.concatenate([part.rows[i] for part in parts])
    filled = np.concatenate([part.labels[i] for part in parts]) >= 0
    return best_first(scores[filled], rows[filled], k)


def _ambiguous(parts: list[_Part], found: list[Neighbours], keep: int) -> list[int]:
    """The queries for which a full heap's worst entry ties with the last answer: more may tie."""
    unclear = np.zeros(len(found), dtype=bool)
    last = np.array([n.scores[-1] if len(n) else np.inf for n in found], dtype=np.float32)
    for part in parts:
        full = part.labels.shape[1] == keep and (part.labels >= 0).all(axis=1)
        unclear |= full & (part.scores.min(axis=1) >= last)
    return [int(i) for i in np.flatnonzero(unclear)]
