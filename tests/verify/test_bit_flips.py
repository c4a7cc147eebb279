"""A single bit that is turned in any file of an index is noticed, or changes no result."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.store.local.files import codes as code_file
from tests.support.bit_flips import flip, make_index, results
from tests.support.colours import ColourEncoder

FLIPS = int(os.environ.get("MMSEARCH_BIT_FLIPS", "60"))


@pytest.fixture
def pristine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(code_file, "BLOCK", 128)
    return Path(shutil.copytree(make_index(tmp_path), tmp_path / "pristine"))


def test_it_is_noticed_or_changes_nothing(pristine: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    assert Index.open(place, encoder=ColourEncoder()).verify().clean
    right = results(place)
    outcomes = Counter(flip(place, pristine, right, seed) for seed in range(FLIPS))
    assert not {name for name, outcome in outcomes if outcome == "MISSED"}
    assert sum(count for (_, outcome), count in outcomes.items() if outcome != "no effect") > FLIPS / 2


@pytest.mark.parametrize("harm", ["exchanged", "signs turned"])
def test_vectors_that_are_vectors_still(pristine: Path, tmp_path: Path, harm: str) -> None:
    place = tmp_path / "index"
    path = next(place.glob("vectors-*.f16"))
    matrix = np.fromfile(path, "<f2").reshape(-1, 4)
    if harm == "exchanged":
        matrix[[3, 9]] = matrix[[9, 3]]
    else:
        matrix = -matrix
    matrix.tofile(path)
    with Index.open(place, encoder=ColourEncoder()) as index:
        kinds = Counter(one.kind for one in index.verify().differences)
        assert kinds["bad vector"] + kinds["lost vector"] == (2 if harm == "exchanged" else len(matrix))
        after = index.verify(mend=True)
        assert {one.kind for one in after.differences} <= {"lost vector"}, "photos are read again, imported rows kept"
        assert index.status()["documents"]["image"] == 1508
        assert next(Path(hit.path).name for hit in index.search("red", k=1500) if "photos" in hit.path) == "red.png"
