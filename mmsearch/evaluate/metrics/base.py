"""What the statistics share: numbers, one a query, checked once where they come in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError

Floats = npt.NDArray[np.float64]
Numbers = Sequence[float] | npt.NDArray[np.generic]


def checked(values: Numbers, name: str) -> Floats:
    """``values`` as float64, (queries,); refuses other shapes, none at all, and NaN."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or np.isnan(numbers).any():
        raise UsageError(f"{name} have shape {numbers.shape}; expected one number a query, at least one, no NaN")
    return numbers
