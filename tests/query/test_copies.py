"""A photo and its smaller copies are one result; other photos are not."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.query.looks import Looks
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


@pytest.mark.parametrize("seed", range(6))
def test_however_long_the_list_each_is_folded_into_the_first_that_is_the_same(seed: int) -> None:
    """Against the definition, one place after another; lists longer than what is compared at once."""
    random = np.random.default_rng(seed)
    means = random.standard_normal((12, 16))
    rows = means[random.integers(12, size=300)] + random.standard_normal((300, 16)) * 0.1
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    looks = [(LARGE, SMALL, ODD, None)[kind] for kind in random.integers(4, size=len(rows))]
    known, groups = Looks.of(looks), list[list[int]]()
    for place in range(len(rows)):
        leaders = np.array([group[0] for group in groups], dtype=np.intp)
        are_same = known.same(leaders, np.full(len(leaders), place), rows[leaders] @ rows[place])
        same = [group for group, is_same in zip(groups, are_same, strict=True) if is_same]
        if same:
            same[0].append(place)
        else:
            groups.append([place])
    assert fold_duplicates(rows, looks) == groups and 20 < len(groups) < 280
