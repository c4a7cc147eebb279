"""The flat matrix of all vectors of one space: the truth that every vector index is rebuilt from.

The file holds rows of little-endian float16, C order, and nothing else, so it can be mapped as it is. Half
precision keeps a unit vector's inner products within about 5e-4, and halves what a search reads. Beside it lie the same
vectors in bytes (`mmsearch.store.local.files.codes`), which halve that again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import VectorError
from mmsearch.store.local.files.codes import CodeFile
from mmsearch.store.local.files.rows import RowFile

DTYPE = np.dtype("<f2")


class VectorFile(RowFile):
    """One append-only matrix on disk, (rows, dim) float16, and its codes. Changing it needs the index's writer lock."""

    what = "vectors"

    def __init__(self, path: Path, dim: int) -> None:
        super().__init__(path, dim * DTYPE.itemsize)
        self.dim = dim
        self.codes = CodeFile(path.with_suffix(".u8"), dim)

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
        self.codes.cut_to(at)
        self._write(rows, at)
        self.codes.complete(self.map(at + len(rows)))

    def cut(self, rows: int) -> int:
        """Drops everything behind the first ``rows`` rows; returns how many bytes of vectors that were.

        Codes that an older mmsearch did not write are written now.

        Raises:
            IndexDamaged: there are fewer.
        """
        surplus = super().cut(rows)
        self.codes.cut_to(rows)
        self.codes.complete(self.map(rows))
        return surplus

    def at(self, path: Path) -> VectorFile:
        """See `RowFile.at`."""
        return VectorFile(path, self.dim)

    def copy_to(self, other: RowFile, places: npt.NDArray[np.int64], rows: int) -> None:
        """See `RowFile.copy_to`; the copy has its codes then."""
        super().copy_to(other, places, rows)
        other.cut(len(places))

    def delete(self) -> None:
        """See `RowFile.delete`."""
        super().delete()
        self.codes.delete()

    def map(self, rows: int) -> npt.NDArray[np.float16]:
        """The first ``rows`` rows as a read-only mapped (rows, dim) float16 array; nothing is read yet."""
        self._check_holds(rows)
        if rows == 0:
            return np.zeros((0, self.dim), dtype=DTYPE)
        return np.memmap(self.path, dtype=DTYPE, mode="r", shape=(rows, self.dim))
