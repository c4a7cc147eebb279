"""The flat matrix: what was appended is what is mapped, and nothing else counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsearch.core.errors import IndexDamaged, VectorError
from mmsearch.store.local.files.vectors import VectorFile


@pytest.fixture
def file(tmp_path: Path) -> VectorFile:
    return VectorFile(tmp_path / "vectors.f16", 3)


def rows(count: int, start: float = 0.0) -> np.ndarray:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3) / 64 + start


def test_appended_rows_come_back_in_half_precision(file: VectorFile) -> None:
    file.append(rows(2), at=0)
    file.append(rows(3, 0.5), at=2)
    expected = np.concatenate([rows(2), rows(3, 0.5)]).astype(np.float16)
    assert np.array_equal(file.map(5), expected)
    assert np.array_equal(file.map(2), expected[:2])


def test_rows_that_were_never_committed_are_overwritten(file: VectorFile) -> None:
    file.append(rows(4, 0.25), at=0)
    file.append(rows(2), at=1)
    assert np.array_equal(file.map(3)[1:], rows(2).astype(np.float16))


def test_cutting_drops_the_tail_and_half_rows(file: VectorFile) -> None:
    file.append(rows(4), at=0)
    with file.path.open("ab") as raw:
        raw.write(b"\1")
    assert file.rows_on_disk() == 4
    assert file.cut(3) == 7
    assert file.path.stat().st_size == 18
    assert file.cut(3) == 0


def test_a_file_shorter_than_what_was_committed_is_damage(file: VectorFile) -> None:
    file.append(rows(2), at=0)
    for use in (lambda: file.map(3), lambda: file.cut(3), lambda: file.append(rows(1), at=3)):
        with pytest.raises(IndexDamaged, match="holds 2 vectors"):
            use()


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 4)), np.full((1, 3), np.nan), np.full((1, 3), 1e9)])
def test_wrong_vectors_are_refused_before_anything_is_written(file: VectorFile, bad: np.ndarray) -> None:
    with pytest.raises(VectorError):
        file.append(bad, at=0)
    assert file.rows_on_disk() == 0


def test_an_empty_file_maps_to_no_rows(file: VectorFile) -> None:
    assert file.map(0).shape == (0, 3)
    assert file.cut(0) == 0
