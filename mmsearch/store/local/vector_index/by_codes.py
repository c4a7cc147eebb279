"""Exact search from codes: a scan of one byte a number finds the rows in question, the vectors themselves decide.

The codes say by how much a score can be off (`files.codes`). The scan goes from a few blocks to ever more; what
it has found so far says how good a code must be to matter in the next. All rows whose codes are that good are scored
as vectors, the most promising first. So what is answered is what scoring every row gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np

from mmsearch.core.errors import VectorError
from mmsearch.store.local.files.codes import STEPS, Codes
from mmsearch.store.local.vector_index.base import Floats, Mask, Matrix, Rows
from mmsearch.store.local.vector_index.code_products import compare_codes, whole_number_slack
from mmsearch.store.local.vector_index.heaps import Heaps, in_threads, ranges
from mmsearch.store.local.vector_index.products import Compare, Doubles
from mmsearch.store.local.vector_index.residency import Residency

SAMPLE = 2048
"""Rows that say how good a code of the first block must be."""
GROWTH = 4
"""So many times as many blocks are scanned before the bound is raised the next time."""
CROWDED = 8
"""Where more than one row in so many comes into question, reading all vectors in order is quicker."""

Score = Callable[[Rows], Floats]
"""The scores of some rows, ascending, as they are to be answered."""


class CodeScanner:
    """Searches the rows of ``matrix``, float16 (n, dim), that have ``codes``. Any number of threads may use it.

    Raises `VectorError` for codes of another dimension or of more rows.
    """

    def __init__(self, codes: Codes, matrix: Matrix) -> None:
        self._blocks = np.asarray(codes)
        self._codes = self._blocks["codes"]
        blocks, self._block, dim = self._codes.shape
        self.rows = blocks * self._block
        """So many rows, from the first, have codes."""
        if dim != matrix.shape[1] or self.rows > len(matrix):
            raise VectorError(
                f"there are codes of {self.rows} vectors of {dim} dimensions, the matrix has shape {matrix.shape}"
            )
        if not (self._blocks["centre"] == self._blocks["centre"][0]).all():
            raise VectorError("the blocks of codes have different centres")
        self._codec: Any = faiss.ScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_direct_signed)
        self._residency = Residency(self._blocks.view(np.uint8).reshape(blocks, -1))

    def search(
        self, query: Floats, k: int, mask: Mask | None, threads: int, score: Score
    ) -> tuple[Floats, Rows] | None:
        """Scores and rows of at least the ``k`` best for ``query``, float32 (dim,), in no order; fewer where there are.

        ``mask``, (n,): the rows that may answer. ``None`` where too many rows come into question, or numbers are too
        large to be compared.
        """
        bits = None if mask is None else np.packbits(mask[: self.rows], bitorder="little")
        spans = list(ranges(len(self._codes), threads))
        left = self._residency.rows_kept(len(spans))
        found = in_threads(lambda span: self._search_span(query, k, bits, span, left, score), spans)
        parts = [part for part in found if part is not None]
        if len(parts) < len(found):
            return None
        scores, rows = zip(*parts, strict=True)
        return np.concatenate(scores), np.concatenate(rows)

    def compare(self, mask: Mask | None) -> Compare:
        """Compares many queries with the rows at once, or with those that ``mask``, (n,), names."""
        return compare_codes(self._blocks, mask, self._residency)

    def _search_span(
        self, query: Floats, k: int, bits: Any, span: range, left: int, score: Score
    ) -> tuple[Floats, Rows] | None:
        """As `search`, in the blocks ``span``, of which the first ``left`` may stay resident."""
        whole = _WholeNumbers(query, self._blocks[span.start : span.stop])
        best = Best(k, whole.slack, score)
        if not np.isfinite(whole.slack):
            return None
        best.floor = self._first_floor(whole, k, bits, span.start)
        kept = span.start + left
        for start, stop in _phases(span):
            scores, rows = self._above(whole, bits, range(start, stop), span.start, best.floor - whole.slack, kept)
            if best.scored + len(rows) > max(len(span) * self._block // CROWDED, GROWTH * k):
                return None
            best.take(scores, rows)
        return best.scores, best.rows

    def _first_floor(self, whole: _WholeNumbers, k: int, bits: Any, block: int) -> float:
        """A score that ``k`` rows reach, going by the first codes of a block: −∞ where there are not so many."""
        sample = self._codes[block][:SAMPLE]
        first = block * self._block // 8
        few = Heaps.empty(1, k)
        few.scan(self._codec, whole.numbers[:1], sample, None if bits is None else bits[first:], 1)
        return float(whole.scores(few.lowest)[0] - whole.slack)

    def _above(
        self, whole: _WholeNumbers, bits: Any, blocks: range, first: int, floor: float, kept: int
    ) -> tuple[Floats, Rows]:
        """The rows with codes that reach ``floor``, and what the codes say of their scores.

        ``blocks`` are scanned, of a span that begins with block ``first``; from block ``kept`` on they do not stay
        resident.
        """
        selector = None if bits is None else faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        scanner = self._codec.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, False, selector)
        scanner.set_list(0, 0.0)
        make: Any = faiss  # FAISS's own type stubs do not know these
        result = make.RangeSearchResult(1)
        partial = make.RangeSearchPartialResult(result)
        found, radius = partial.new_result(0), whole.radius(floor)
        for block in blocks:
            rows = np.arange(block * self._block, (block + 1) * self._block)
            scanner.set_query(faiss.swig_ptr(whole.numbers[block - first]))
            codes = faiss.swig_ptr(self._codes[block])
            scanner.scan_codes_range(self._block, codes, faiss.swig_ptr(rows), radius, found)
            self._residency.release(max(block, kept), block + 1)
        partial.finalize()
        count = int(make.rev_swig_ptr(result.lims, 2)[1])
        if not count:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        raw, labels = make.rev_swig_ptr(result.distances, count), make.rev_swig_ptr(result.labels, count)
        return whole.scores(raw), np.array(labels, np.int64)


class _WholeNumbers:
    """A query as FAISS compares it with codes: in whole numbers of −127 to 127, on one scale for all blocks.

    With the steps s of a block, q · vector = q · centre + (q·s) · code, but for what the codes lose; and q·s is a unit
    times whole numbers, but for at most half a unit in each dimension.
    """

    def __init__(self, query: Floats, blocks: Codes) -> None:
        exact, centre = query.astype(np.float64), blocks["centre"][0].astype(np.float64)
        stretched = exact * blocks["steps"]
        self._unit = float(np.abs(stretched).max()) / STEPS or 1.0
        whole = np.rint(stretched / self._unit)
        self.numbers: Floats = whole.astype(np.float32)
        """For each block, float32 (blocks, dim)."""
        self._offset = float(exact @ centre)
        lost = np.linalg.norm(stretched - whole * self._unit, axis=1) * blocks["code_length"]
        worst = {name: blocks[name].max() for name in ("error", "length", "code_length")}
        slack = whole_number_slack(np.linalg.norm(exact), lost.max(), self._unit * STEPS, worst, centre)
        self.slack = float(slack)
        """How far the score of a vector may lie from that of its code; infinite: too large to tell."""

    def scores(self, found: Floats) -> Floats:
        """What FAISS found as scores of the query, float32; worked out in float64, where the smallest unit is exact."""
        return (found.astype(np.float64) * self._unit + self._offset).astype(np.float32)

    def radius(self, score: float) -> float:
        """What FAISS finds for a score a little below ``score``."""
        if score == -np.inf:
            return -np.inf
        return float(np.nextafter(np.float32((score - self._offset) / self._unit), np.float32(-np.inf)))


class Best:
    """The ``k`` best rows so far, those that tie with them, and the score ``floor`` that they reach."""

    def __init__(self, k: int, slack: float, score: Score) -> None:
        self._k, self._slack, self._score = k, slack, score
        self.scores, self.rows = np.empty(0, np.float32), np.empty(0, np.int64)
        self.floor = -np.inf
        self.scored = 0

    def take(self, codes_say: Floats | Doubles, rows: Rows) -> None:
        """Scores the rows that matter, the most promising first: these raise the floor for the others."""
        order = np.argsort(-codes_say, kind="stable")
        for part in (order[: 2 * self._k], order[2 * self._k :]):
            self._add(np.sort(rows[part[codes_say[part] + self._slack >= self.floor]]))

    def _add(self, rows: Rows) -> None:
        if not len(rows):
            return
        self.scored += len(rows)
        scores, rows = np.append(self.scores, self._score(rows)), np.append(self.rows, rows)
        if len(scores) >= self._k:
            self.floor = max(self.floor, float(np.partition(scores, len(scores) - self._k)[-self._k]))
        good = scores >= self.floor
        self.scores, self.rows = scores[good], rows[good]


def _phases(span: range) -> Iterator[tuple[int, int]]:
    """One block, then ever more."""
    start, blocks = span.start, 1
    while start < span.stop:
        stop = min(start + blocks, span.stop)
        yield start, stop
        start, blocks = stop, blocks * GROWTH
