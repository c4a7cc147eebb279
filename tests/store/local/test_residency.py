"""What a mapped matrix leaves resident, and that searching it in parts answers as searching it whole."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsearch.store.local.vector_index import ExactIndex, residency
from mmsearch.store.local.vector_index import exact as exact_module
from mmsearch.store.local.vector_index.base import allowed_rows
from mmsearch.store.local.vector_index.residency import HUGE_PAGE, Residency

DIM, ROWS = 64, 200_000  # 26 MB
LIMIT = 8 << 20


@pytest.fixture
def mapped(tmp_path: Path) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float16)
    rows.tofile(tmp_path / "vectors.f16")
    return np.memmap(tmp_path / "vectors.f16", dtype="<f2", mode="r", shape=(ROWS, DIM))


@pytest.fixture
def bounded(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> ExactIndex:
    monkeypatch.setattr(exact_module, "RELEASED_BYTES", LIMIT // 4)
    index = ExactIndex(mapped)
    index._residency = Residency(index._matrix, LIMIT)
    return index


def resident(matrix: np.ndarray) -> int:
    """Bytes of the map that are resident in this process, from the kernel's account of its maps."""
    name = str(matrix.filename)
    size, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            inside = line.endswith(name)
        elif inside and line.startswith("Rss:"):
            size += int(line.split()[1]) * 1024
    return size


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/smaps")


@linux
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_a_scan_leaves_no_more_than_the_limit(
    mapped: np.ndarray, bounded: ExactIndex, threads: int, count: int
) -> None:
    queries = np.random.default_rng(1).standard_normal((count, DIM)).astype(np.float32)
    without = np.arange(0, ROWS, 3)
    for banned in (None, without):
        found = bounded.search(queries, 7, without=banned, threads=threads)
        assert LIMIT // 2 <= resident(mapped) <= LIMIT + 2 * threads * HUGE_PAGE
        whole = ExactIndex(np.array(mapped)).search(queries, 7, without=banned, threads=1)
        for one, other in zip(found, whole, strict=True):
            np.testing.assert_array_equal(one.rows, other.rows)
            np.testing.assert_array_equal(one.scores, other.scores)


@linux
@pytest.mark.parametrize("banned", [None, np.arange(0, ROWS, 3)])
def test_products_leave_no_more_than_the_limit(
    mapped: np.ndarray, bounded: ExactIndex, banned: np.ndarray | None
) -> None:
    allowed = allowed_rows(ROWS, None, banned)
    seen = [(rows, vectors.sum()) for rows, vectors in bounded._blocks(allowed)]
    assert LIMIT // 2 <= resident(mapped) <= LIMIT + 2 * HUGE_PAGE
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in seen]), np.flatnonzero(allowed.as_mask(ROWS)))


@linux
def test_rows_read_one_by_one_are_let_go_once_they_are_too_many(
    mapped: np.ndarray, bounded: ExactIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residency, "ROWS_BETWEEN_LOOKS", 50)
    rows = np.random.default_rng(2).choice(ROWS, 49, replace=False)
    np.testing.assert_array_equal(bounded.gather(rows), np.array(mapped)[rows])
    before = resident(mapped)
    assert before > 0
    for _ in range(residency.SLICES):  # the libraries of this process alone are larger than the limit
        bounded._residency.gathered(50)
    assert resident(mapped) == 0


def test_small_matrices_and_those_in_memory_are_left_alone(mapped: np.ndarray) -> None:
    for matrix, limit in ((mapped, mapped.nbytes), (np.array(mapped), LIMIT)):
        bound = Residency(matrix, limit)
        bound.release(0, ROWS)
        bound.gathered(ROWS)
        assert not bound.is_bounded
    assert Residency(mapped, LIMIT).is_bounded == hasattr(mmap.mmap, "madvise")


@linux
def test_a_part_of_a_map_is_known_by_its_place_in_the_file(mapped: np.ndarray) -> None:
    first = ROWS // 2
    part = np.asarray(mapped)[first:]
    assert float(np.asarray(mapped).astype(np.float32).sum()) != 0 and resident(mapped) == mapped.nbytes
    Residency(part, LIMIT).release(0, len(part))
    assert abs(resident(mapped) - mapped.nbytes // 2) <= HUGE_PAGE
