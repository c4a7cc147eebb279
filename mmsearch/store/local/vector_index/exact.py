"""Exact search: every allowed row is scored, straight from the mapped vector file.

FAISS's fp16 scalar quantiser stores a vector as the same little-endian float16 numbers that the vector file
holds. So its scanner, meant for inverted lists, reads the mapped matrix in place: no copy, nothing to build,
and only the pages that are read become resident. The scanner compares in float32 after widening float16,
keeps a heap of the best, honours an id selector, and holds no lock of the interpreter while it runs. Many queries
at once are first narrowed down by matrix products (`products`), and what is left is scored by the same scanner. Few
are narrowed down by codes in one byte a number (`by_codes`), where the vector file has them: half the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mmsearch.store.local.files.codes import Codes
from mmsearch.store.local.vector_index.base import (
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
from mmsearch.store.local.vector_index.by_codes import Best, CodeScanner
from mmsearch.store.local.vector_index.heaps import Heaps, gathered, in_threads, ranges, worthwhile_threads
from mmsearch.store.local.vector_index.products import Compare, Likely, compare_vectors, is_worth_it, may_be_best
from mmsearch.store.local.vector_index.residency import RELEASED_BYTES, Residency
from mmsearch.store.local.vector_index.row_reader import RowReader

BLOCK = 4096
"""Rows that a batch of queries shares at a time: 4 MB of 512-d float16, which stays in the cache."""

NARROW = 8
"""Codes are asked first where at most one row in so many is wanted."""

WIDE = 2
"""Codes serve many queries at once where at least one row in so many may answer."""


class ExactIndex:
    """Exact inner-product search over ``matrix``, float16 (n, dim), usually a read-only memory map.

    ``codes`` of its first rows (`files.codes`) change no answer, only the time it takes. Nothing is copied and
    nothing is built; both must stay mapped while the index is used. Searching changes nothing, so any number of
    threads may search at once. Another type or shape is a `VectorError`.
    """

    def __init__(self, matrix: npt.NDArray[np.float16], codes: Codes | None = None) -> None:
        self._matrix = as_matrix(matrix)
        self._residency = Residency(self._matrix)
        self._reader = RowReader.of(matrix)
        self._codes = None
        if codes is not None:
            self._codes = CodeScanner(codes, self._matrix)
            self._rest = ExactIndex(self._matrix[self._codes.rows :])
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
        if self._codes is not None and allowed.rows is None and NARROW * k <= allowed.count:
            return self._search_by_codes(queries, k, keep, allowed, threads)
        return self._search_by_scans(queries, k, keep, allowed, threads)

    def _search_by_codes(
        self, queries: Floats, k: int, keep: int, allowed: Allowed, threads: int | None
    ) -> list[Neighbours]:
        """What `_search_by_scans` finds, from half the bytes: see `mmsearch.store.local.vector_index.by_codes`."""
        assert self._codes is not None
        many = threads or worthwhile_threads(allowed.count)
        answers = []
        for query, late in zip(queries, self._search_rest(queries, k, allowed, threads), strict=True):
            found = self._codes.search(query, k, allowed.mask, many, partial(self._score_rows, query))
            if found is None:
                answers += self._search_by_scans(query[None], k, keep, allowed, threads)
                continue
            answers.append(best_first(np.append(found[0], late.scores), np.append(found[1], late.rows), k))
        return answers

    def _search_rest(self, queries: Floats, k: int, allowed: Allowed, threads: int | None) -> list[Neighbours]:
        """The best of the rows that have no codes yet."""
        assert self._codes is not None
        rest = self._allowed_of_rest(allowed, self._codes.rows)
        if not rest.count:
            return nothing(len(queries))
        found = self._rest.search_allowed(queries, k, rest, threads)
        return [Neighbours(one.scores, one.rows + self._codes.rows) for one in found]

    def _allowed_of_rest(self, allowed: Allowed, first: int) -> Allowed:
        """Which of the rows from ``first`` on, those without codes, may answer where these are ``allowed``."""
        mask = None if allowed.mask is None else allowed.mask[first:]
        return Allowed(len(self._rest) if mask is None else int(np.count_nonzero(mask)), mask=mask)

    def _search_by_products(self, queries: Floats, k: int, keep: int, allowed: Allowed) -> list[Neighbours]:
        """What `_search_by_scans` finds, in a fraction of the time: see `vector_index.products`."""
        found: dict[int, Neighbours] = {}
        for compare in self._ways_to_compare(allowed):
            left = [place for place in range(len(queries)) if place not in found]
            likely = dict(zip(left, may_be_best(compare, queries[left], k), strict=True))
            found.update(self._best_of_likely(queries, {p: one for p, one in likely.items() if one is not None}, k))
        for place in range(len(queries)):
            if place not in found:
                found[place] = self._search_by_scans(queries[place : place + 1], k, keep, allowed, None)[0]
        return [found[place] for place in range(len(queries))]

    def _best_of_likely(self, queries: Floats, likely: dict[int, Likely], k: int) -> dict[int, Neighbours]:
        """Of the rows that are likely for some of the queries, by their numbers, the ``k`` best."""
        places = list(likely)

        def answer(span: range) -> list[Neighbours]:
            answers = []
            for place in places[span.start : span.stop]:
                best = Best(k, 0.0, partial(self._score_rows, queries[place]))
                best.take(*likely[place])
                answers.append(best_first(best.scores, best.rows, k))
            return answers

        spans = list(ranges(len(places), worthwhile_threads(sum(len(rows) for _, rows in likely.values()))))
        return dict(zip(places, chain.from_iterable(in_threads(answer, spans)), strict=True)) if places else {}

    def _ways_to_compare(self, allowed: Allowed) -> Iterator[Compare]:
        """What may give up, quickest first."""
        codes = self._codes
        if codes is not None and allowed.rows is None and WIDE * allowed.count >= len(self):
            rest = self._allowed_of_rest(allowed, codes.rows)
            of_codes = codes.compare(allowed.mask)
            of_rest = compare_vectors(lambda: self._rest._blocks(rest, codes.rows))
            yield lambda queries: chain(of_codes(queries), of_rest(queries))
        yield compare_vectors(lambda: self._blocks(allowed))

    def _blocks(self, allowed: Allowed, first: int = 0) -> Iterator[tuple[Rows, Matrix]]:
        """All allowed rows, a block at a time, with their numbers, which begin at ``first``."""
        if allowed.rows is not None:
            for low in range(0, len(allowed.rows), BLOCK):
                rows = allowed.rows[low : low + BLOCK]
                yield first + rows, self.gather(rows)
            return
        kept = self._residency.rows_kept(1)
        for low in range(0, len(self), BLOCK):
            high = min(low + BLOCK, len(self))
            if allowed.mask is None:
                yield np.arange(first + low, first + high, dtype=np.int64), self._matrix[low:high]
            elif len(rows := low + np.flatnonzero(allowed.mask[low:high])):
                yield first + rows, self._matrix[rows]
            if high > kept:
                self._residency.release(max(low, kept), high)

    def _search_by_scans(
        self, queries: Floats, k: int, keep: int, allowed: Allowed, threads: int | None
    ) -> list[Neighbours]:
        parts = self._scan(queries, keep, allowed, threads)
        found = [best_first(*gathered(parts, i), k) for i in range(len(queries))]
        unclear = [] if keep == allowed.count else _ambiguous(parts, found)
        for i in unclear:
            found[i] = self._settle_ties(queries[i : i + 1], k, keep, allowed, threads)
        return found

    def score(self, query: Floats, vectors: Matrix) -> Floats:
        """The score of each of ``vectors``, float16 (m, dim) in C order, for one checked ``query`` (dim,)."""
        part = Heaps.empty(1, len(vectors))
        if len(vectors):
            part.scan(self._codec, query[None], vectors, None, 0)
        scores = np.empty(len(vectors), dtype=np.float32)
        scores[part.labels[0]] = part.scores[0]
        return scores

    def _score_rows(self, query: Floats, rows: Rows) -> Floats:
        return self.score(query, self.pick(rows))

    def pick(self, rows: Rows) -> Matrix:
        """As `gather`, for a few rows all over a large file: they are read without mapping what lies around them."""
        return self.gather(rows) if self._reader is None else self._reader.gather(rows)

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
            found = best_first(*gathered(parts, 0), k)
            if keep == allowed.count or not _ambiguous(parts, [found]):
                return found

    def _scan(self, queries: Floats, keep: int, allowed: Allowed, threads: int | None) -> list[Heaps]:
        """The ``keep`` best of each query, from each of several ranges of the rows."""
        n = allowed.count if allowed.rows is not None else len(self)
        # Queries share blocks of rows while they are in the cache. One query has nobody to share with, so it takes
        # all rows at once, or as many as may be resident.
        block = BLOCK if allowed.rows is not None or len(queries) > 1 else max(BLOCK, n)
        if allowed.rows is None and self._residency.is_bounded:
            block = min(block, max(BLOCK, RELEASED_BYTES // self._matrix.strides[0] // 8 * 8))
        threads = threads or worthwhile_threads(allowed.count * len(queries))
        spans = list(ranges(n, threads))
        left = self._residency.rows_kept(len(spans))
        return in_threads(lambda span: self._scan_range(queries, keep, allowed, span, block, left), spans)

    def _scan_range(self, queries: Floats, keep: int, allowed: Allowed, span: range, block: int, left: int) -> Heaps:
        """The ``keep`` best of each query among the rows (or positions in ``allowed.rows``) of ``span``.

        Of the rows that are read in place, only the first ``left`` stay resident.
        """
        part = Heaps.empty(len(queries), min(keep, len(span) + 1))
        kept = span.start + left
        bits = None if allowed.mask is None else np.packbits(allowed.mask[span.start : span.stop], bitorder="little")
        for number, low in enumerate(range(span.start, span.stop, block), start=1):
            high = min(low + block, span.stop)
            vectors = self._matrix[low:high] if allowed.rows is None else self.gather(allowed.rows[low:high])
            part.scan(self._codec, queries, vectors, None if bits is None else bits[(low - span.start) // 8 :], number)
            if allowed.rows is None and (high - kept) * self._matrix.strides[0] >= RELEASED_BYTES:
                self._residency.release(kept, high)
                kept = high
        if allowed.rows is None and span.stop > kept:
            self._residency.release(kept, span.stop)
        part.finish(block, span.start, allowed.rows)
        return part


def _ambiguous(parts: list[Heaps], found: list[Neighbours]) -> list[int]:
    """The queries for which a full heap's worst entry ties with the last answer: more may tie."""
    unclear = np.zeros(len(found), dtype=bool)
    last = np.array([n.scores[-1] if len(n) else np.inf for n in found], dtype=np.float32)
    for part in parts:
        unclear |= part.lowest >= last
    return [int(i) for i in np.flatnonzero(unclear)]
