"""Vectors in one byte a number, and how far that is off at most: what an exact search reads instead of the vectors.

Reading is most of what an exact search does, and these are half the bytes. Rows are taken in blocks. A vector is the
centre (the mean of the file's first block) and, in each dimension, a code of −127 to 127 times a step (of its block);
what is lost by that is shorter than the block says. By the inequality of Cauchy and Schwarz no score is off by more
than this times the length of the query. So whoever looks again at all rows whose codes come that near to the best has
looked at every row that may be among the best (Weber, Schek and Blott 1998 call such a file a VA-file).

It is nothing but the vector file over again: it is written from it, and without it searches take longer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.store.local.files.rows import RowFile

Codes = npt.NDArray[np.void]
"""Blocks of codes: (blocks,), of the type that `block_type` gives."""
BLOCK = 16_384
"""Rows of a block: 8 MB at 512 dimensions. The last rows of a vector file are in no block until there are so many."""
STEPS = 127
ZERO = 128
"""The code of 0: codes are what FAISS calls 8bit_direct_signed."""
_CHUNK = 2048
"""Rows that are turned into codes at a time."""


def block_type(dim: int, rows: int) -> np.dtype[Any]:
    """A block of so many rows; see `encode`."""
    scalars = [(name, "<f4") for name in ("error", "length", "code_length")]
    return np.dtype([("centre", "<f4", (dim,)), ("steps", "<f4", (dim,)), *scalars, ("codes", "u1", (rows, dim))])


def encode(vectors: npt.NDArray[np.float16], centre: npt.NDArray[np.float32] | None = None) -> Codes:
    """One block of the rows ``vectors``, float16 (rows, dim), around ``centre`` (their mean): an array of shape (1,).

    ``centre + steps · (codes − 128)`` are the vectors, but for differences no longer than ``error``; ``length`` is
    that of the longest vector, ``code_length`` that of the longest row of codes − 128. They are rounded up, so that
    they hold whatever was lost in computing them. Damaged vectors, those with NaN or infinite values, count as zeros.
    """
    rows, dim = vectors.shape
    fine = np.asarray(np.isfinite(vectors).all(axis=1))
    if not fine.all():
        vectors = np.where(fine[:, None], vectors, np.float16(0))
    block = np.zeros(1, dtype=block_type(dim, rows))
    if centre is None:
        centre = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    chunks = [slice(low, low + _CHUNK) for low in range(0, rows, _CHUNK)]
    farthest = np.max([np.abs(vectors[chunk] - centre).max(axis=0) for chunk in chunks], axis=0)
    steps = np.where(farthest > 0, farthest / STEPS, 1).astype(np.float32)
    error = length = code_length = 0.0
    for chunk in chunks:
        exact = vectors[chunk].astype(np.float32)
        codes = np.rint((exact - centre) / steps).clip(-STEPS, STEPS)
        block["codes"][0, chunk] = codes + ZERO
        length, code_length = max(length, _longest(exact)), max(code_length, _longest(codes))
        error = max(error, _longest(exact - centre - codes * steps))
    room = 1 + (dim + 4) * 2.0**-23  # for sums of squares in float32 and for what is stored as float32
    around = length + float(np.linalg.norm(centre))
    block["centre"], block["steps"] = centre, steps
    block["length"], block["code_length"] = length * room, code_length * room
    block["error"] = error * room + around * 2.0**-21  # and for differences and products in float32
    return block


def _longest(rows: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max()))


class CodeFile(RowFile):
    """The codes of the first rows of one vector file, as many blocks as are full. A row of this file is a block."""

    what = "blocks of codes"

    def __init__(self, path: Path, dim: int) -> None:
        self._dtype = block_type(dim, BLOCK)
        super().__init__(path, self._dtype.itemsize)

    def complete(self, vectors: npt.NDArray[np.float16]) -> None:
        """Writes the blocks that ``vectors``, (rows, dim) float16, fill and that are not there yet, and syncs them.

        Needs the index's writer lock.
        """
        for number in range(self.rows_on_disk(), len(vectors) // BLOCK):
            self._write(self._encode(vectors, number), number)

    def _encode(self, vectors: npt.NDArray[np.float16], number: int) -> Codes:
        blocks = self.map(number * BLOCK)
        return encode(vectors[number * BLOCK : (number + 1) * BLOCK], None if blocks is None else blocks[0]["centre"])

    def cut_to(self, rows: int) -> None:
        """Drops the blocks that hold more than the first ``rows`` rows of the vector file."""
        self.cut(min(self.rows_on_disk(), rows // BLOCK))

    def blocks_within(self, rows: int) -> int:
        """How many blocks there are of the first ``rows`` rows of the vector file."""
        return min(self.rows_on_disk(), rows // BLOCK)

    def map(self, rows: int) -> Codes | None:
        """The blocks that lie within the first ``rows`` rows, mapped: (blocks,); ``None`` where there is none."""
        blocks = self.blocks_within(rows)
        try:
            return np.memmap(self.path, dtype=self._dtype, mode="r", shape=(blocks,)) if blocks else None
        except FileNotFoundError:  # a compacted index has other files by now
            return None

    def mend(self, vectors: npt.NDArray[np.float16], blocks: Iterable[int]) -> None:
        """Writes some blocks again, in their place: somebody may have them mapped."""
        for number in blocks:
            self._write(self._encode(vectors, number), number)

    def wrong_blocks(self, vectors: npt.NDArray[np.float16], start: int = 0) -> list[int]:
        """Which blocks, from ``start`` on, do not say what ``vectors``, (rows, dim) float16, would make them say."""
        blocks = self.map(len(vectors))
        numbers = range(start, 0 if blocks is None else len(blocks))
        return [number for number in numbers if not _agrees(blocks[number], self._encode(vectors, number)[0])]  # type: ignore[index]


def _agrees(block: Any, true: Any) -> bool:
    """Whether a block may be trusted as the ``true`` one: sums may be rounded in another way on another machine."""
    equal = np.array_equal(block["codes"], true["codes"])
    return equal and all(np.allclose(block[name], true[name], 1e-4, 0) for name in block.dtype.names if name != "codes")
