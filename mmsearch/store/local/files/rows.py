"""A file of rows of equal length that is only appended to, the form in which an index keeps what is large.

Which rows count is not said here: the catalogue's committed row count says it, and bytes past it are left-overs of a
crash.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import IndexDamaged
from mmsearch.core.system import sync_directory

_COPIED_BYTES = 1 << 26
"""At a time."""


class RowFile:
    """Rows of ``row_bytes`` bytes. Appending needs the index's writer lock. ``what`` one row is, in messages."""

    what = "rows"

    def __init__(self, path: Path, row_bytes: int) -> None:
        self.path = path
        self._row_bytes = row_bytes

    @property
    def row_bytes(self) -> int:
        """What a row takes."""
        return self._row_bytes

    def rows_on_disk(self) -> int:
        """Whole rows in the file, committed or not."""
        return self.bytes_on_disk() // self._row_bytes

    def bytes_on_disk(self) -> int:
        """The file's length; 0 where there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def cut(self, rows: int) -> int:
        """Drops everything behind the first ``rows`` rows; returns how many bytes that were.

        Raises:
            IndexDamaged: there are fewer.
        """
        self._check_holds(rows)
        surplus = self.bytes_on_disk() - rows * self._row_bytes
        if surplus > 0:
            os.truncate(self.path, rows * self._row_bytes)
        return max(surplus, 0)

    def at(self, path: Path) -> RowFile:
        """A file of the same rows at another path."""
        return RowFile(path, self._row_bytes)

    def copy_to(self, other: RowFile, places: npt.NDArray[np.int64], rows: int) -> None:
        """Writes those of the first ``rows`` rows at ``places``, as they are, to an empty file, and syncs them."""
        self._check_holds(rows)
        other._write(np.empty(0, np.uint8), 0)
        block = max(1, _COPIED_BYTES // self._row_bytes)
        shape = (rows, self._row_bytes)
        mapped = np.memmap(self.path, np.uint8, "r", shape=shape) if rows else np.empty(shape, np.uint8)
        for start in range(0, len(places), block):
            other._write(np.ascontiguousarray(mapped[places[start : start + block]]), start)

    def delete(self) -> None:
        """Removes it from the disk, if it is there."""
        self.path.unlink(missing_ok=True)

    def _write(self, rows: npt.NDArray[np.generic], at: int) -> None:
        """Writes C-contiguous rows from row ``at`` on, over anything there, and syncs them to the disk."""
        self._check_holds(at)
        is_new = not self.path.exists()
        with self.path.open("wb" if is_new else "r+b") as file:
            file.seek(at * self._row_bytes)
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_directory(self.path.parent)

    def _check_holds(self, rows: int) -> None:
        found = self.rows_on_disk()
        if found < rows:
            raise IndexDamaged(
                f"{self.path.name} holds {found} {self.what}, the catalogue has committed {rows}: "
                "`mmsearch verify --mend` makes what is lacking again from the files, and keeps the rest"
            )
