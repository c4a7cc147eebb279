"""Single rows read from the file of a mapped matrix."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from mmsearch.store.local.recipes import load_recipe
from mmsearch.store.local.vector_index import AnnIndex, row_reader
from mmsearch.store.local.vector_index.row_reader import RowReader

N, DIM = 3000, 32


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Vectors of length 1; every matrix counts as large."""
    monkeypatch.setattr(row_reader, "LARGE", 0)
    rows = np.random.default_rng(0).standard_normal((N, DIM))
    (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).tofile(tmp_path / "vectors.f16")
    return tmp_path / "vectors.f16"


def mapped(file: Path, rows: int = N) -> np.memmap:
    return np.memmap(file, np.float16, "r", shape=(rows, DIM))


def test_rows_are_those_of_the_map(file: Path) -> None:
    matrix = mapped(file)
    for part in (matrix, matrix[100:2000]):
        reader = RowReader.of(part)
        assert reader is not None
        for rows in ([0], [len(part) - 1], [5, 5, 3], [], np.random.default_rng(1).integers(0, len(part), 700)):
            chosen = np.array(rows, dtype=np.int64)
            np.testing.assert_array_equal(reader.gather(chosen), part[chosen])


def test_many_threads_read_at_once(file: Path) -> None:
    matrix, wrong = mapped(file), []
    reader = RowReader.of(matrix)
    assert reader is not None

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(30):
            rows = random.integers(0, N, 200)
            if not np.array_equal(reader.gather(rows), matrix[rows]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_no_large_map_of_this_file_is_left_to_the_map(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = mapped(file)
    assert RowReader.of(np.array(matrix)) is None
    assert RowReader.of(matrix[::2]) is None
    other = file.with_name("other.f16")
    np.ones((N, DIM), np.float16).tofile(other)
    other.replace(file)  # the map goes on showing the old file
    assert RowReader.of(matrix) is None
    file.unlink()
    assert RowReader.of(matrix) is None
    np.asarray(matrix).tofile(file)
    assert RowReader.of(mapped(file)) is not None
    monkeypatch.setattr(row_reader, "LARGE", matrix.nbytes)
    assert RowReader.of(mapped(file)) is None


def test_a_file_that_ends_early_is_not_believed(file: Path) -> None:
    reader = RowReader.of(mapped(file))
    assert reader is not None and reader._read(np.array([N])) is None


@pytest.mark.parametrize("recipe", ["pq_scan", "ivf_pq"])
def test_an_index_answers_the_same_with_it(file: Path, recipe: str) -> None:
    matrix = mapped(file)
    index = AnnIndex.build(matrix, load_recipe(recipe), threads=1).with_matrix(matrix)
    plain = index.with_matrix(np.array(matrix))
    assert index._exact._reader is not None and plain._exact._reader is None
    queries = np.asarray(matrix[:40], np.float32)
    for one, other in zip(index.search(queries, 10), plain.search(queries, 10), strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)
