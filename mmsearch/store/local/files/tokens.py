"""Image tokens of a reranker, kept with an index so that a question need not open the pictures again.

A row holds the tokens of one image: a float16 scale for each token, then each token's channels as int8 steps of its
scale. That is half of float16 and moves a channel by at most 1/254 of its token's largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.arrays import quantised
from mmsearch.core.errors import VectorError
from mmsearch.store.local.files.rows import RowFile


class TokenFile(RowFile):
    """One append-only file of tokens of ``shape`` an image. Appending needs the index's writer lock."""

    what = "images' tokens"

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._dtype = np.dtype([("scale", "<f2", shape[:-1]), ("steps", "i1", shape)])
        super().__init__(path, self._dtype.itemsize)

    @property
    def bytes_per_image(self) -> int:
        """What the tokens of one image take here."""
        return self._dtype.itemsize

    def append(self, tokens: npt.NDArray[np.floating], at: int) -> None:
        """Writes the tokens of n images, (n, *shape), from row ``at`` on, and syncs them to the disk.

        ``at`` is the committed row count: what lies behind it was never committed and is overwritten.

        Raises:
            VectorError: another shape, or a value that is not finite.
            IndexDamaged: the file is shorter than ``at`` rows.
        """
        if tokens.shape[1:] != self.shape:
            raise VectorError(f"expected image tokens of shape (n, {str(self.shape)[1:-1]}), got {tokens.shape}")
        values = tokens.astype(np.float32)
        if not np.isfinite(values).all():
            raise VectorError("image tokens hold NaN or infinite values")
        rows = np.zeros(len(values), dtype=self._dtype)
        rows["steps"], scale = quantised(values, axis=-1, dtype=np.float16)
        rows["scale"] = scale[..., 0]
        self._write(rows, at)

    def read(self, places: Sequence[int], rows: int) -> npt.NDArray[np.float16]:
        """The tokens at ``places``, all below the committed count ``rows``: (n, *shape) float16.

        Raises:
            IndexDamaged: the file is shorter than ``rows`` rows.
        """
        chosen = self._map(rows)[np.asarray(places, dtype=np.int64)]
        tokens: npt.NDArray[np.float16] = chosen["steps"].astype(np.float16) * chosen["scale"][..., None]
        return tokens

    def bad_rows(self, rows: int, block: int = 1024) -> npt.NDArray[np.int64]:
        """Which of the first ``rows`` rows cannot be tokens: a scale that is negative or not finite."""
        mapped, found = self._map(rows), [np.zeros(0, dtype=np.int64)]
        for start in range(0, rows, block):
            scale = mapped["scale"][start : start + block].reshape(-1, int(np.prod(self.shape[:-1])))
            fine = (np.isfinite(scale) & (scale >= 0)).all(axis=1)
            found.append(start + np.flatnonzero(~fine))
        return np.concatenate(found)

    def _map(self, rows: int) -> npt.NDArray[Any]:
        self._check_holds(rows)
        if rows == 0:
            return np.zeros(0, dtype=self._dtype)
        return np.memmap(self.path, dtype=self._dtype, mode="r", shape=(rows,))
