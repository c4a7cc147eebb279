"""What every vector index speaks: neighbours, checked queries, and the set of rows that may answer.

A row is the position of a vector in the vector file, from 0. Vectors have length 1 and are compared by
inner product, so a score is a cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import VectorError

Matrix = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The answer to one query, best first: ``scores`` float32 (m,), ``rows`` int64 (m,), no row twice.

    Equal scores are ordered by row, lower first. ``m`` is ``min(k, allowed rows)``; it may be 0.
    """

    scores: Floats
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)


def check_queries(queries: npt.ArrayLike, dim: int) -> Floats:
    """``queries`` as contiguous float32 (q, dim).

    Raises `VectorError` for any other shape, for a type that is not real numbers, and for NaN or infinity.
    """
    array = np.asarray(queries)
    if array.ndim != 2 or array.shape[1] != dim:
        raise VectorError(f"queries have shape {array.shape}; this index answers queries of shape (q, {dim})")
    if array.dtype.kind not in "fiu":
        raise VectorError(f"queries have type {array.dtype}; real numbers are expected, as float32")
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise VectorError(f"query {bad} of {len(array)} holds NaN or infinity")
    return array


def check_k(k: int) -> int:
    """``k`` as an int of at least 1; anything else is a `VectorError`."""
    if isinstance(k, bool) or int(k) != k or k < 1:
        raise VectorError(f"k is {k!r}; at least 1 neighbour must be asked for")
    return int(k)


def check_rows(rows: npt.ArrayLike, what: str) -> Rows:
    """``rows`` as int64 (m,): one axis, whole numbers, none negative; else `VectorError`."""
    array = np.asarray(rows)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise VectorError(f"`{what}` has shape {array.shape} and type {array.dtype}; rows are int64 of shape (m,)")
    array = array.astype(np.int64, copy=False)
    if array.min() < 0:
        raise VectorError(f"`{what}` holds row {array.min()}; rows count from 0")
    return array


@dataclass(frozen=True, eq=False)
class Allowed:
    """Which of ``n`` rows may answer.

    Either every row (both fields ``None``), or the sorted ``rows`` of a small set, or the ``mask`` (n,) of a
    large one. ``count`` is the number of allowed rows.
    """

    count: int
    rows: Rows | None = None
    mask: Mask | None = None

    @property
    def everything(self) -> bool:
        """Whether every row is allowed."""
        return self.rows is None and self.mask is None

    def as_mask(self, n: int) -> Mask:
        """The allowed rows as booleans (n,)."""
        if self.mask is not None:
            return self.mask
        mask = np.full(n, self.rows is None)
        if self.rows is not None:
            mask[self.rows] = True
        return mask


SPARSE = 1 / 32
"""Below this share of allowed rows, picking them out costs less than passing over all others (measured)."""


def allowed_rows(n: int, only: npt.ArrayLike | None, without: npt.ArrayLike | None) -> Allowed:
    """The rows 0 … n−1 that are in ``only`` (``None``: all) and not in ``without``.

    Rows at or past ``n`` are not in this matrix and are ignored: a catalogue may already know newer ones.
    Negative rows are a `VectorError`.
    """
    wanted = None if only is None else check_rows(only, "only")
    banned = None if without is None else check_rows(without, "without")
    if banned is not None:
        banned = banned[banned < n]
    if wanted is not None:
        wanted = wanted[wanted < n]
        if len(wanted) <= SPARSE * n:
            rows = np.unique(wanted)
            if banned is not None and len(banned):
                rows = rows[~np.isin(rows, banned)]
            return Allowed(len(rows), rows=rows)
    if wanted is None and (banned is None or not len(banned)):
        return Allowed(n)
    mask = np.full(n, wanted is None)
    if wanted is not None:
        mask[wanted] = True
    if banned is not None:
        mask[banned] = False
    count = int(np.count_nonzero(mask))
    if count == n:
        return Allowed(n)
    if count <= SPARSE * n:
        return Allowed(count, rows=np.flatnonzero(mask))
    return Allowed(count, mask=mask)


def best_first(scores: Floats, rows: Rows, k: int) -> Neighbours:
    """The ``k`` best of unordered ``scores`` and ``rows`` (m,); equal scores by lower row."""
    order = np.lexsort((rows, -scores))[:k]
    return Neighbours(scores[order], rows[order])


def nothing(count: int) -> list[Neighbours]:
    """``count`` empty answers."""
    return [Neighbours(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in range(count)]


def as_matrix(matrix: npt.NDArray[Any]) -> Matrix:
    """``matrix`` if it is what a vector file maps to, float16 (n, dim) in C order; else `VectorError`."""
    if matrix.ndim != 2 or matrix.dtype != np.float16 or matrix.shape[1] < 1:
        raise VectorError(f"the matrix has shape {matrix.shape} and type {matrix.dtype}; float16 (n, dim) is expected")
    if not matrix.dtype.isnative:
        raise VectorError("the matrix is not in this machine's byte order; vector files are little-endian")
    # A plain view: slicing np.memmap objects costs microseconds each, slicing arrays does not.
    plain = np.asarray(matrix)
    if not plain.flags.c_contiguous:
        raise VectorError("the matrix is not in C order: its rows must lie one after the other")
    return plain


def gather(matrix: Matrix, rows: Sequence[int] | Rows) -> Matrix:
    """A copy of ``rows`` of ``matrix``: float16 (len(rows), dim), C order."""
    return matrix.take(rows, axis=0)
