"""The flat matrix of all vectors of one tower: the truth that every vector index is rebuilt from.

The file holds rows of little-endian float16, C order, and nothing else, so it can be mapped as it is. Which
rows count is not said here: the catalogue's committed row count says it, and bytes past it are left-overs of a
crash. Half precision keeps a unit vector's inner products within about 5e-4, and halves what a search reads.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmsearch.errors import IndexDamaged, VectorError
from mmsearch.system import sync_directory

DTYPE = np.dtype("<f2")


class VectorFile:
    """One append-only matrix on disk, (rows, dim) float16. Appending needs the index's writer lock."""

    def __init__(self, path: Path, dim: int) -> None:
        self.path = path
        self.dim = dim
        self._row_bytes = dim * DTYPE.itemsize

    def rows_on_disk(self) -> int:
        """Whole rows in the file, committed or not."""
        try:
            return self.path.stat().st_size // self._row_bytes
        except FileNotFoundError:
            return 0

    def append(self, vectors: npt.NDArray[np.floating], at: int) -> None:
        """Writes (n, dim) rows of length 1 from row ``at`` on, over anything there, and syncs them to the disk.

        ``at`` is the committed row count: what lies behind it was never committed and is overwritten.

        Raises:
            VectorError: a shape other than (n, dim), or a value that is not finite.
            IndexDamaged: the file is shorter than ``at`` rows.
        """
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
            rows = np.ascontiguousarray(vectors, dtype=DTYPE)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise VectorError(f"expected vectors of shape (n, {self.dim}), got {vectors.shape}")
        if not np.isfinite(rows).all():
            raise VectorError("vectors hold NaN or infinite values")
        self._check_holds(at)
        is_new = not self.path.exists()
        with self.path.open("wb" if is_new else "r+b") as file:
            file.seek(at * self._row_bytes)
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_directory(self.path.parent)

    def cut(self, rows: int) -> int:
        """Drops everything behind the first ``rows`` rows; returns how many bytes that were."""
        self._check_holds(rows)
        if not self.path.exists():
            return 0
        keep = rows * self._row_bytes
        surplus = self.path.stat().st_size - keep
        if surplus > 0:
            os.truncate(self.path, keep)
        return surplus

    def map(self, rows: int) -> npt.NDArray[np.float16]:
        """The first ``rows`` rows as a read-only mapped (rows, dim) float16 array; nothing is read yet."""
        self._check_holds(rows)
        if rows == 0:
            return np.zeros((0, self.dim), dtype=DTYPE)
        return np.memmap(self.path, dtype=DTYPE, mode="r", shape=(rows, self.dim))

    def _check_holds(self, rows: int) -> None:
        found = self.rows_on_disk()
        if found < rows:
            raise IndexDamaged(
                f"{self.path.name} holds {found} vectors, the catalogue has committed {rows}: "
                "restore the index from a copy, or remove it and index again"
            )
