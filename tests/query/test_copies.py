"""A photo and its smaller copies are one result; other photos are not."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.query.moments import fold_duplicates
from mmsearch.store.base import Look

LARGE, SMALL, ODD = Look(4000, 3000, None), Look(400, 300, None), Look(400, 320, None)


def vectors(cosine: float) -> np.ndarray:
    return np.array([[1, 0], [cosine, np.sqrt(1 - cosine**2)]], dtype=np.float32)


@pytest.mark.parametrize(
    ("cosine", "looks", "folded"),
    [
        (0.98, (LARGE, SMALL), True),
        (0.98, (SMALL, LARGE), True),
        (0.98, (LARGE, LARGE), False),
        (0.995, (LARGE, LARGE), True),
        (0.98, (LARGE, ODD), False),
        (0.96, (LARGE, SMALL), False),
        (0.98, (LARGE, Look(None, None, None)), False),
        (0.98, (Look(4000, 3000, "2020-01-01T10:00:00"), Look(400, 300, "2020-01-01T10:05:00")), False),
        (0.98, (LARGE, None), False),
    ],
)
def test_sizes_count(cosine: float, looks: tuple[Look | None, Look | None], folded: bool) -> None:
    assert len(fold_duplicates(vectors(cosine), looks)) == (1 if folded else 2)
