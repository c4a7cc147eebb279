"""What a scan keeps: the best few of each query, in heaps that FAISS's scanners fill block after block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import faiss
import numpy as np
import numpy.typing as npt

from mmsearch.core.system import usable_cores
from mmsearch.store.local.vector_index.base import Floats, Rows

Found = TypeVar("Found")

ROWS_PER_THREAD = 100_000
"""Fewer scored rows than this (about 2.5 ms) are not worth another thread."""


@dataclass(eq=False)
class Heaps:
    """A heap a query: ``scores`` float32 and ``labels`` int64 (q, keep); label −1 where it is not full.

    While a scan goes on, a label is ``number << 32 | position in the block``, blocks counting from 1; then `finish`
    gives the ``rows`` they mean, int64 (q, keep).
    """

    scores: Floats
    labels: Rows
    rows: Rows

    @classmethod
    def empty(cls, queries: int, keep: int) -> Heaps:
        """Heaps of ``keep`` entries for so many queries."""
        labels, scores = np.empty((queries, keep), np.int64), np.empty((queries, keep), np.float32)
        labels.fill(-1)
        scores.fill(-np.inf)
        return cls(scores, labels, labels)

    def scan(
        self, codec: Any, queries: Floats, vectors: npt.NDArray[Any], bits: npt.NDArray[np.uint8] | None, number: int
    ) -> None:
        """Lets every query see one block of rows, as ``codec`` stores them, or those whose bit is set."""
        selector = None if bits is None else faiss.IDSelectorBitmap(len(vectors), faiss.swig_ptr(bits))
        scanner = codec.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, True, selector)
        scanner.set_list(number if bits is None else 0, 0.0)  # a selector knows rows by their labels
        codes = faiss.swig_ptr(vectors.view(np.uint8))
        for query, scores, labels in zip(queries, self.scores, self.labels, strict=True):
            scanner.set_query(faiss.swig_ptr(query))
            scanner.scan_codes(len(vectors), codes, None, faiss.swig_ptr(scores), faiss.swig_ptr(labels), len(scores))
        if bits is not None:
            self.labels[(self.labels >= 0) & (self.labels < 1 << 32)] += number << 32

    def finish(self, block: int, start: int, among: Rows | None = None) -> None:
        """Says which rows the labels mean: blocks have ``block`` rows and begin at ``start``, or lie in ``among``."""
        positions = (self.labels >> 32) - 1
        positions *= block
        positions += (self.labels & 0xFFFFFFFF) + start
        self.rows = positions if among is None else among[np.minimum(positions, len(among) - 1)]

    def of(self, i: int) -> tuple[Floats, Rows]:
        """The scores and rows in the heap of query ``i``."""
        filled = self.labels[i] >= 0
        return self.scores[i][filled], self.rows[i][filled]

    @property
    def lowest(self) -> Floats:
        """The score that a row must have beaten to be kept, (q,): −inf where a heap has room left."""
        full = (self.labels >= 0).all(axis=1)
        return np.where(full, self.scores.min(axis=1, initial=np.inf), -np.inf).astype(np.float32)


def gathered(heaps: list[Heaps], i: int) -> tuple[Floats, Rows]:
    """All scores and rows that several scans kept for query ``i``."""
    scores, rows = zip(*(one.of(i) for one in heaps), strict=True)
    return np.concatenate(scores), np.concatenate(rows)


def ranges(n: int, parts: int) -> Iterator[range]:
    """0 … n−1 in at most ``parts`` ranges of nearly equal length."""
    size = max(1, -(-n // parts))
    for low in range(0, n, size):
        yield range(low, min(low + size, n))


def worthwhile_threads(scored: int) -> int:
    """How many threads are worth their while for so many pairs of query and row."""
    return max(1, min(usable_cores(), -(-scored // ROWS_PER_THREAD)))


def in_threads(scan: Callable[[range], Found], spans: Sequence[range]) -> list[Found]:
    """What ``scan`` says of each of several ranges, each in a thread of its own."""
    if len(spans) == 1:
        return [scan(spans[0])]
    with ThreadPoolExecutor(len(spans), thread_name_prefix="mmsearch-scan") as pool:
        return list(pool.map(scan, spans))
