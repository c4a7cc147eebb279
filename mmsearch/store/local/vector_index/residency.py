"""How much of a mapped matrix stays resident after it was read.

Pages of a mapped file belong to the system's cache, which keeps them or not as it sees fit; what a process maps of
them counts as its resident memory until it lets go. A scan of a large matrix would leave all of it mapped, and so
would a few thousand re-scored answers, since the system maps 64 KB to 2 MB around every row that is read. So readers
say here what they have read, and what goes beyond `RESIDENT` bytes is let go again. Nothing is lost by
that: the next reader of those pages maps them anew from the cache.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

RESIDENT = 960 << 20
"""Bytes of one file that may stay resident: codes of a million vectors of 1,000 dimensions. What a scan lets go costs
the next one a third more time, what re-scoring lets go a fraction of a millisecond a query (measured)."""

RELEASED_BYTES = 16 << 20
"""Bytes that a scan of a large mapped matrix reads before it lets go of them."""

HUGE_PAGE = 2 << 20
"""Bytes that the system may map, and let go of, as one."""

ROWS_BETWEEN_LOOKS = 512
"""Rows that are read one by one before the resident memory is looked up: that takes 20 µs."""

SLICES = 16
"""Parts of the map that take turns at being let go of: letting go of 1 GB at once would hold up one query for 30 ms."""


class Residency:
    """Bounds the resident part of ``matrix``, (n, dim) in C order, float16 or bytes. Does nothing where it is no map.

    Any number of threads may use it; letting pages go while another thread reads them only makes it map them again.
    """

    def __init__(self, matrix: npt.NDArray[np.generic], limit: int = RESIDENT) -> None:
        self._map = map_of(matrix) if matrix.nbytes > limit else None
        self._row_bytes = int(matrix.strides[0])
        self._limit = limit
        self._unseen = self._turn = 0
        if self._map is not None:
            self._start = np.frombuffer(self._map, np.uint8).ctypes.data
            self._offset = matrix.ctypes.data - self._start

    @property
    def is_bounded(self) -> bool:
        """Whether there is anything to let go: a map larger than the limit."""
        return self._map is not None

    def rows_kept(self, readers: int) -> int:
        """How many rows each of several readers of disjoint parts may leave behind."""
        return self._limit // self._row_bytes // readers

    def release(self, first: int, stop: int) -> None:
        """Lets go of rows ``first`` … ``stop`` − 1, from the huge page of the first to before that of the last."""
        if self._map is None:
            return
        low = (self._start + self._offset + first * self._row_bytes) // HUGE_PAGE * HUGE_PAGE - self._start
        high = self._offset + stop * self._row_bytes
        if high < len(self._map):
            high = (self._start + high) // HUGE_PAGE * HUGE_PAGE - self._start
        low = max(0, low)
        if high > low:
            self._map.madvise(mmap.MADV_DONTNEED, low, high - low)

    def gathered(self, rows: int) -> None:
        """Notes that ``rows`` single rows were read, and lets go of a part where too much is resident by now."""
        if self._map is None:
            return
        self._unseen += rows
        if self._unseen >= ROWS_BETWEEN_LOOKS:
            self._unseen = 0
            if _resident_of_files() > self._limit:
                size = -(-len(self._map) // SLICES // HUGE_PAGE) * HUGE_PAGE
                low = self._turn * size
                self._turn = (self._turn + 1) % SLICES
                if low < len(self._map):
                    self._map.madvise(mmap.MADV_DONTNEED, low, min(size, len(self._map) - low))


def map_of(matrix: npt.NDArray[np.generic]) -> mmap.mmap | None:
    """The map that an array is a view of, where the system can be told to let go of its pages."""
    owner: object = matrix
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) and hasattr(owner, "madvise") else None


def _resident_of_files() -> int:
    """Resident bytes of all mapped files of this process; 0 where the system does not tell (only Linux does)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return 0
