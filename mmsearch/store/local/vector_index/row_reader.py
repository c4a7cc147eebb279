"""Single rows of a large mapped matrix, read from its file and not through the map.

Re-scoring reads some hundred rows all over the file. Through a map, each of them makes the system map up to megabytes
around it: after a few queries nearly the whole file counts as resident, and letting go of it and mapping it anew costs
more than the rows do. Reading 800 rows of 896 numbers out of 1.8 GB takes 2.1 ms this way and leaves nothing resident;
through the map it takes 3.2 ms and leaves 0.9 GB (processor time, AVX2).
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.store.local.vector_index.base import Matrix, Rows, gather
from mmsearch.store.local.vector_index.residency import map_of

LARGE = 256 << 20
"""Smaller matrices may stay mapped as a whole, which is quickest."""


def _find_pread() -> Any:
    """The system's ``pread``, called with the interpreter's lock held; ``None`` where there is none.

    `os.pread` lets go of the lock at every row, and another busy thread would keep it for milliseconds each time.
    """
    try:
        function = ctypes.PyDLL(None).pread
    except (OSError, TypeError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
    function.restype = ctypes.c_ssize_t
    return function if sys.maxsize > 1 << 32 else None  # where file positions have 64 bits


_pread = _find_pread()


class RowReader:
    """Reads rows of a mapped matrix, float16 (n, dim), from its file. Any number of threads may use it."""

    def __init__(self, matrix: Matrix, file: int, start: int) -> None:
        self._matrix, self._file, self._start = matrix, file, start
        self._row_bytes = int(matrix.strides[0])
        weakref.finalize(self, os.close, file)

    @classmethod
    def of(cls, matrix: npt.NDArray[Any]) -> RowReader | None:
        """A reader of the file that ``matrix`` is a map of; ``None`` where it is no map, small, or not that file's."""
        found = map_of(matrix)
        name, offset = getattr(matrix, "filename", None), getattr(matrix, "offset", None)
        if _pread is None or found is None or name is None or offset != 0 or matrix.nbytes <= LARGE:
            return None
        if not matrix.flags.c_contiguous:
            return None
        try:
            file = os.open(name, os.O_RDONLY)
        except OSError:
            return None
        start = matrix.ctypes.data - np.frombuffer(found, np.uint8).ctypes.data
        reader = cls(np.asarray(matrix), file, start)
        ends = np.array([0, len(matrix) - 1])
        read = reader._read(ends)  # another file may have this name by now
        return reader if read is not None and np.array_equal(read, gather(reader._matrix, ends)) else None

    def gather(self, rows: Rows) -> Matrix:
        """A copy of ``rows``, int64 (m,), each of them in the matrix: float16 (m, dim), C order."""
        found = self._read(rows)
        return gather(self._matrix, rows) if found is None else found

    def _read(self, rows: Rows) -> Matrix | None:
        read = np.empty((len(rows), self._matrix.shape[1]), dtype=self._matrix.dtype)
        address, size, file = read.ctypes.data, self._row_bytes, self._file
        for position in (self._start + rows * size).tolist():
            if _pread(file, address, size, position) != size:
                return None
            address += size
        return read
