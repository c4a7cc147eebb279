"""Arrays as they are shipped and kept: int8 with scales, and `.npz` files that name the encoder they belong to."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

STEPS = 127


def quantised(
    values: npt.NDArray[np.float32], axis: int, smallest: float = 0.0, dtype: npt.DTypeLike = np.float32
) -> tuple[npt.NDArray[np.int8], npt.NDArray[Any]]:
    """``values`` as whole steps of −127 to 127 of a scale that all along ``axis`` share: int8 of the same shape, and
    the scales, of ``dtype``, whose length along ``axis`` is 1 and which are at least ``smallest``.

    Steps are worked out from the scale as it is stored. Values whose scale is 0 become 0.
    """
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / STEPS, smallest).astype(dtype)
    wide = scale.astype(np.float32)
    steps = np.divide(values, wide, out=np.zeros(values.shape, np.result_type(values, wide)), where=wide > 0)
    return np.clip(np.rint(steps), -STEPS, STEPS).astype(np.int8), scale


def dequantised(steps: npt.NDArray[np.int8], scale: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Float32 values of `quantised` ones, as near as their steps are."""
    values: npt.NDArray[np.float32] = steps.astype(np.float32) * scale
    return values


def read_npz(path: Path, is_of: Callable[[str], bool]) -> dict[str, npt.NDArray[Any]] | None:
    """All arrays of a file whose ``encoder`` is one that ``is_of`` says yes to; ``None`` for another's, and where the
    file is missing or damaged. Nothing is unpickled.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files} if is_of(str(stored["encoder"])) else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None
