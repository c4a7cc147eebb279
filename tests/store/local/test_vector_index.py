"""Exact search against a slow oracle: every score of the same float16 rows in numpy, sorted."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import VectorError
from mmsearch.store.local.vector_index import ExactIndex, Neighbours
from mmsearch.store.local.vector_index import exact as exact_module
from mmsearch.store.local.vector_index.base import Allowed
from mmsearch.store.local.vector_index.products import compare_vectors, is_worth_it, may_be_best

TOLERANCE = 1e-4
"""Scores differ only by the order of float32 additions."""


def unit(n: int, dim: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def vectors(n: int, dim: int, seed: int = 0) -> np.ndarray:
    return unit(n, dim, seed).astype(np.float16)


def oracle_rows(n: int, only: np.ndarray | None, without: np.ndarray | None) -> list[int]:
    allowed = set(range(n)) if only is None else set(only.tolist()) & set(range(n))
    return sorted(allowed - (set() if without is None else set(without.tolist())))


def check(
    found: Neighbours,
    matrix: np.ndarray,
    query: np.ndarray,
    k: int,
    only: np.ndarray | None = None,
    without: np.ndarray | None = None,
) -> None:
    """``found`` is what sorting every allowed score gives, where near-equal scores may change places."""
    allowed = np.array(oracle_rows(len(matrix), only, without), dtype=np.int64)
    truth = matrix.astype(np.float32) @ query
    expected = np.sort(truth[allowed])[::-1][: min(k, len(allowed))]
    assert found.rows.dtype == np.int64 and found.scores.dtype == np.float32
    assert len(found) == len(found.scores) == len(expected)
    assert len(set(found.rows.tolist())) == len(found)
    assert np.isin(found.rows, allowed).all()
    np.testing.assert_allclose(found.scores, truth[found.rows], atol=TOLERANCE)
    np.testing.assert_allclose(found.scores, expected, atol=TOLERANCE)
    pairs = list(zip((-found.scores).tolist(), found.rows.tolist(), strict=True))
    assert pairs == sorted(pairs)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_search_is_what_sorting_every_score_gives(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 300))
    dim = data.draw(st.sampled_from([1, 3, 8, 17, 64]))
    k = data.draw(st.integers(1, n + 5))
    rows = st.lists(st.integers(0, n + 20), max_size=n + 20).map(lambda x: np.array(x, dtype=np.int64))
    only, without = data.draw(st.none() | rows), data.draw(st.none() | rows)
    count, threads = data.draw(st.integers(0, 4)), data.draw(st.none() | st.integers(1, 5))
    seed = data.draw(st.integers(0, 9))
    matrix, queries = vectors(n, dim, seed), unit(count, dim, seed + 1)
    answers = ExactIndex(matrix).search(queries, k, only=only, without=without, threads=threads)
    assert len(answers) == count
    for found, query in zip(answers, queries, strict=True):
        check(found, matrix, query, k, only, without)


@pytest.mark.parametrize("share", [None, 0.001, 0.02, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("count", [1, 3])
def test_many_blocks_and_threads_at_every_selectivity(share: float | None, count: int) -> None:
    n = 3 * exact_module.BLOCK + 777
    matrix, queries = vectors(n, 24), unit(count, 24, 7)
    rng = np.random.default_rng(3)
    only = None if share is None else rng.permutation(n)[: int(share * n)]
    without = rng.permutation(n)[:50]
    for threads in (1, 2, 7):
        answers = ExactIndex(matrix).search(queries, 40, only=only, without=without, threads=threads)
        for found, query in zip(answers, queries, strict=True):
            check(found, matrix, query, 40, only, without)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("k", [1, 4, 9, 30])
def test_copies_of_one_vector_answer_by_lower_row(k: int, threads: int) -> None:
    matrix = vectors(500, 16)
    copies = np.random.default_rng(1).permutation(500)[:200]
    matrix[copies] = matrix[copies[0]]
    query = matrix[copies[:1]].astype(np.float32)
    found = ExactIndex(matrix).search(query, k, threads=threads)[0]
    assert found.rows.tolist() == sorted(copies.tolist())[:k]
    only = np.sort(copies)[100:]
    found = ExactIndex(matrix).search(query, k, only=only, threads=threads)[0]
    assert found.rows.tolist() == only.tolist()[:k]


def test_all_rows_equal() -> None:
    matrix = np.repeat(vectors(1, 8), 6000, axis=0)
    for found in ExactIndex(matrix).search(unit(2, 8), 5, threads=2):
        assert found.rows.tolist() == [0, 1, 2, 3, 4]


def alone(index: ExactIndex, queries: np.ndarray, k: int, **rows: np.ndarray | None) -> list[Neighbours]:
    return [index.search(query[None], k, **rows)[0] for query in queries]


def same(found: list[Neighbours], expected: list[Neighbours]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("k", [1, 10, 300])
@pytest.mark.parametrize("share", [None, 0.02, 0.5])
def test_many_queries_at_once_are_answered_as_each_alone(k: int, share: float | None) -> None:
    """Row by row and bit by bit, though products add up in another order."""
    n = 9 * exact_module.BLOCK + 13
    matrix, queries = vectors(n, 40), unit(70, 40, 7)
    matrix[5000:5400] = matrix[100]  # ties, and scores that differ in the last bits alone
    matrix[20_000:21_000] = (matrix[7] * np.float16(1.001)).astype(np.float16)
    queries[3], queries[4] = matrix[100], matrix[7]
    rng = np.random.default_rng(3)
    only = None if share is None else rng.permutation(n)[: int(share * n)]
    if share == 0.02:  # few rows, but more than a product is made for
        matrix, only = np.tile(matrix, (25, 1)), rng.permutation(25 * n)[: exact_module.BLOCK * 5]
    index, without = ExactIndex(matrix), rng.permutation(len(matrix))[:50]
    assert is_worth_it(len(queries), k, len(matrix) if only is None else len(only) - 50)
    same(index.search(queries, k, only=only, without=without), alone(index, queries, k, only=only, without=without))


@pytest.mark.parametrize("order", [1, -1])
def test_products_need_not_know_good_rows_first(order: int) -> None:
    """Rows from the worst to the best: each block holds better ones than all before it."""
    matrix, queries = vectors(30_000, 24), np.repeat(unit(1, 24, 5), 40, axis=0)
    queries[1::2] = unit(20, 24, 6)
    matrix = matrix[np.argsort(order * (matrix.astype(np.float32) @ queries[0]))]
    index = ExactIndex(matrix)
    same(index.search(queries, 50), alone(index, queries, 50))


def test_queries_among_crowds_of_equal_rows_are_answered_all_the_same() -> None:
    matrix, queries = np.repeat(vectors(2, 8), 12_000, axis=0), unit(50, 8)
    index = ExactIndex(matrix)
    crowded = list(may_be_best(compare_vectors(lambda: index._blocks(Allowed(len(matrix)))), queries, 5))
    assert all(rows is None for rows in crowded)
    same(index.search(queries, 5), alone(index, queries, 5))


@pytest.mark.parametrize("scale", [1e-30, 3e4, 1e36])
def test_products_of_any_size_of_numbers(scale: float) -> None:
    matrix, queries = vectors(20_000, 8), unit(40, 8, 3)
    matrix[77] *= np.float16(6e4)
    index, scaled = ExactIndex(matrix), (queries * scale).astype(np.float32)
    same(index.search(scaled, 9), alone(index, scaled, 9))


def test_a_read_only_map_is_searched_in_place(tmp_path: Path) -> None:
    matrix = vectors(1000, 32)
    path = tmp_path / "vectors.f16"
    matrix.astype("<f2").tofile(path)
    mapped = np.memmap(path, dtype="<f2", mode="r", shape=(1000, 32))
    index = ExactIndex(mapped)
    assert np.shares_memory(index._matrix, mapped)
    query = unit(1, 32, 5)
    check(index.search(query, 10)[0], matrix, query[0], 10)
    assert (len(index), index.dim) == (1000, 32)


def test_concurrent_searches_answer_as_single_ones() -> None:
    matrix, queries = vectors(5000, 32), unit(60, 32, 2)
    index, without = ExactIndex(matrix), np.arange(0, 5000, 3)
    expected = [index.search(q[None], 7, without=without, threads=1)[0] for q in queries]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda q: index.search(q[None], 7, without=without)[0], queries))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.scores, b.scores)


def test_no_global_thread_setting_is_changed() -> None:
    before = faiss.omp_get_max_threads()
    ExactIndex(vectors(9000, 8)).search(unit(3, 8), 5, threads=2)
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize(
    ("queries", "says"),
    [
        (np.zeros((2, 7), np.float32), r"\(2, 7\).*\(q, 8\)"),
        (np.zeros(8, np.float32), r"\(8,\).*\(q, 8\)"),
        (np.full((2, 8), np.nan, np.float32), "query 0 of 2 holds NaN"),
        (np.array([[0.0] * 8, [np.inf] * 8]), "query 1 of 2"),
        (np.full((1, 8), 1e300), "query 0 of 1 holds NaN or infinity"),
        (np.zeros((1, 8), np.complex64), "complex64"),
        (np.array([["a"] * 8]), "type <U1"),
    ],
)
def test_bad_queries_are_refused(queries: np.ndarray, says: str) -> None:
    with pytest.raises(VectorError, match=says):
        ExactIndex(vectors(5, 8)).search(queries, 3)


def test_bad_k_and_rows_are_refused() -> None:
    index, query = ExactIndex(vectors(5, 8)), unit(1, 8)
    for k in (0, -1, True, 1.5):
        with pytest.raises(VectorError, match="k is"):
            index.search(query, k)  # type: ignore[arg-type]
    with pytest.raises(VectorError, match="`only` holds row -2"):
        index.search(query, 1, only=np.array([1, -2]))
    with pytest.raises(VectorError, match=r"`without` has shape \(1, 1\)"):
        index.search(query, 1, without=np.array([[1]]))
    with pytest.raises(VectorError, match="float64"):
        index.search(query, 1, only=np.array([1.0]))


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((3, 4), np.float32),
        np.zeros(4, np.float16),
        np.zeros((3, 0), np.float16),
        np.zeros((3, 4), ">f2"),
        np.zeros((4, 3), np.float16).T,
        np.zeros((6, 4), np.float16)[::2],
    ],
)
def test_bad_matrices_are_refused(matrix: np.ndarray) -> None:
    with pytest.raises(VectorError, match="the matrix"):
        ExactIndex(matrix)


def test_searching_does_not_leak() -> None:
    """FAISS hands out a new scanner for every block; each must be freed."""
    code = """
import numpy as np, resource
from mmsearch.store.local.vector_index import ExactIndex
index, query = ExactIndex(np.ones((64, 512), np.float16)), np.ones((1, 512), np.float32)
def peak(times):
    for _ in range(times):
        index.search(query, 3, without=np.arange(5), threads=1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
first = peak(300)
print(peak(5000) - first)
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 4096, f"{grown} KiB more after 5000 searches"
