"""Recipes for a GPU, from `optimize` to filtered searches.

FAISS's own indexes in main memory stand in for those on the device: `to_device`, the one function that moves an index
there, hands back what it is given, and FAISS is said to see one GPU. All else is what runs on a machine with one:
building, tuning, saving, opening, proposing, filtering, scoring, catching up. What only a device can show is in the
tests at the end, which run where FAISS sees one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from mmsearch.core.errors import IndexDamaged, RecipeError
from mmsearch.store.local import vectors as vectors_module
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.optimize import OptimizeOptions, optimize
from mmsearch.store.local.recipes import load_recipe
from mmsearch.store.local.vector_index import AnnIndex, ExactIndex, GpuIndex, gpu_count
from mmsearch.store.local.vector_index import ann as ann_module
from mmsearch.store.local.vector_index import gpu as gpu_module
from mmsearch.store.local.vector_index.tuning import recall_of
from mmsearch.store.local.vectors import BuiltIndex, Vectors
from tests.store.local.test_optimize import DIM, TEXTS, HashEncoder, add, make_index, unit

N = 3000
RECIPES = ["gpu_exact", "gpu_ivf", "gpu_cagra"]


def clustered(n: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, DIM))
    return unit(centres[random.integers(0, 40, n)] + 0.6 * random.standard_normal((n, DIM)))


MATRIX = clustered(N).astype(np.float16)
QUERIES = clustered(60, 1)
EXACT = ExactIndex(MATRIX)


@pytest.fixture
def main_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device that is main memory."""
    monkeypatch.setattr(gpu_module, "gpu_count", lambda: 1)
    monkeypatch.setattr(gpu_module, "to_device", lambda core: core)
    vectors_module._say_once.cache_clear()
    yield
    vectors_module._say_once.cache_clear()


def most(name: str) -> dict[str, int]:
    return {parameter.name: parameter.grid[-1] for parameter in load_recipe(name).parameters}


def test_without_a_gpu_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    if gpu_count():
        pytest.skip("FAISS sees a GPU here")
    index = make_index(tmp_path / "index", 1500)
    for name in RECIPES:
        with pytest.raises(
            RecipeError, match=rf"{name} needs an NVIDIA GPU .* install faiss-gpu-cu12 in place of"
        ) as no:
            optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe=name))
        assert "\n" not in str(no.value)
    assert IndexDirectory.open(index.path).manifest.recipe == "exact"
    with pytest.raises(RecipeError, match="made for the CPU"):
        GpuIndex.build(MATRIX, load_recipe("pq_scan"))
    with pytest.raises(RecipeError, match="not one that builds an index on the CPU"):
        AnnIndex.build(MATRIX, load_recipe("gpu_ivf"))


@pytest.mark.parametrize("name", RECIPES)
def test_an_index_is_built_tuned_kept_and_searched(name: str, tmp_path: Path, main_memory: None) -> None:
    index = make_index(tmp_path / "index", 2000)
    report = optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe=name, recall=0.9))
    assert report.recipe == name and set(report.tuned) == {"text", "image"}
    assert report.tuned["text"].reached and report.tuned["image"].reached
    index = IndexDirectory.open(index.path)
    built = BuiltIndex.of(index)
    assert built is not None and (built.recipe, built.rows) == (name, 2000)
    vectors = Vectors(index, index.space())
    assert vectors.recipe == name and isinstance(vectors._ann, GpuIndex)
    exact = ExactIndex(index.matrix(index.space()))
    for kind in ("text", "image"):
        queries = HashEncoder().encode_texts([f"another {number}" for number in range(100)])
        neighbours, truth = vectors.search(queries, 10, kind=kind), exact.search(queries, 10)
        assert recall_of(neighbours, truth).mean() >= 0.85
        for got, true in zip(neighbours, truth, strict=True):
            _, ours, theirs = np.intersect1d(got.rows, true.rows, return_indices=True)
            np.testing.assert_array_equal(got.scores[ours], true.scores[theirs])


@pytest.mark.parametrize("name", RECIPES)
def test_rows_committed_later_are_there_before_and_after_opening_anew(
    name: str, tmp_path: Path, main_memory: None
) -> None:
    index = make_index(tmp_path / "index", 1500)
    optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe=name, recall=0.9))
    add(index, 200, seed=1)
    index = IndexDirectory.open(index.path)
    matrix = index.matrix(index.space())
    vectors = Vectors(index, index.space())
    assert vectors._ann is not None and vectors._ann.covered == 1700  # taken in at opening
    for row in (3, 1501, 1699):
        query = matrix[row : row + 1].astype(np.float32)
        assert vectors.search(query, 3, kind="image")[0].rows[0] == row
        (others,) = vectors.search(query, 3, kind="image", without=[row])
        assert row not in others.rows and len(others) == 3


@pytest.mark.parametrize("name", RECIPES)
def test_rows_behind_an_open_index_are_scored_exactly(name: str, main_memory: None) -> None:
    grown = np.concatenate([MATRIX, clustered(200, 8).astype(np.float16)])
    behind = GpuIndex.build(MATRIX, load_recipe(name)).with_matrix(grown)
    assert isinstance(behind, GpuIndex) and (behind.covered, len(behind)) == (N, N + 200)
    late = grown[N:].astype(np.float32)
    assert [one.rows[0] for one in behind.search(late, 1)] == list(range(N, N + 200))
    without = np.arange(N, N + 100)
    assert not np.isin(behind.search(late[:5], 3, without=without)[0].rows, without).any()
    assert behind.add() == (0 if name == "gpu_cagra" else 200)


@pytest.mark.parametrize("share", [0.9, 0.3, 0.02])
@pytest.mark.parametrize("name", RECIPES)
def test_filters_give_k_allowed_rows(
    name: str, share: float, main_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows are proposed as fewer are allowed, until that is too many and the CPU searches exactly."""
    monkeypatch.setattr(ann_module, "EXACT_ROWS", 0)
    monkeypatch.setattr(ann_module, "EXACT_SHARE", 0.0)
    index = GpuIndex.build(MATRIX, load_recipe(name))
    random = np.random.default_rng(5)
    only, without = random.permutation(N)[: int(share * N)], random.permutation(N)[:100]
    allowed = np.setdiff1d(only, without)
    neighbours = index.search(QUERIES, 10, only=only, without=without, parameters=most(name))
    truth = EXACT.search(QUERIES, 10, only=allowed)
    assert all(len(one) == 10 and np.isin(one.rows, allowed).all() for one in neighbours)
    assert recall_of(neighbours, truth).mean() >= (0.9 if share > 0.1 else 1.0)


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_gpu_does_not_do_is_searched_exactly(name: str, main_memory: None) -> None:
    index = GpuIndex.build(MATRIX, load_recipe(name))
    cases: list[tuple[int, dict]] = [(5, {"only": np.arange(100, 200)}), (2500, {}), (N + 5, {})]
    for k, conditions in cases:
        pairs = zip(index.search(QUERIES[:5], k, **conditions), EXACT.search(QUERIES[:5], k, **conditions), strict=True)
        for got, true in pairs:
            np.testing.assert_array_equal(got.rows, true.rows)
    assert [len(one) for one in index.search(QUERIES[:2], 3, only=[])] == [0, 0]
    with pytest.raises(RecipeError, match="no search parameter"):
        index.search(QUERIES[:1], 3, parameters={"ef": 3})


def test_several_threads_take_turns(main_memory: None) -> None:
    index = GpuIndex.build(MATRIX, load_recipe("gpu_ivf"))
    expected = index.search(QUERIES, 7)
    with ThreadPoolExecutor(8) as pool:
        neighbours = list(pool.map(lambda query: index.search(query[None], 7)[0], QUERIES))
    for got, true in zip(neighbours, expected, strict=True):
        np.testing.assert_array_equal(got.rows, true.rows)


@pytest.mark.parametrize("name", RECIPES)
def test_where_the_gpu_is_gone_searching_is_exact_and_the_log_says_so_once(
    name: str, tmp_path: Path, main_memory: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(tmp_path / "index", 1500)
    optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe=name, recall=0.9))
    monkeypatch.setattr(gpu_module, "gpu_count", lambda: 0)
    index = IndexDirectory.open(index.path)
    queries = HashEncoder().encode_texts(TEXTS[:5])
    for _ in range(2):
        vectors = Vectors(index, index.space())
        assert vectors.recipe == "exact"
        truth = ExactIndex(index.matrix(index.space())).search(queries, 5)
        for got, true in zip(vectors.search(queries, 5), truth, strict=True):
            np.testing.assert_array_equal(got.rows, true.rows)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.message.startswith(
        f"searching exactly, on the CPU: recipe {name}"
    )


def test_a_gpu_that_gives_up_while_it_searches_costs_nothing_but_time(
    main_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    index = GpuIndex.build(MATRIX, load_recipe("gpu_ivf"))

    class Refusing:
        ntotal, d = N, DIM

        def search(self, *_: object, **__: object) -> None:
            faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, 4).add(QUERIES)  # untrained: FAISS's own error

    index._core = Refusing()
    for _ in range(2):
        for got, true in zip(index.search(QUERIES, 5), EXACT.search(QUERIES, 5), strict=True):
            np.testing.assert_array_equal(got.rows, true.rows)
    assert len(caplog.records) == 1 and "the GPU gave up" in caplog.text


def test_what_lies_in_the_vector_file_is_not_written_again(tmp_path: Path, main_memory: None) -> None:
    sizes = {}
    for name in RECIPES:
        path = tmp_path / name
        GpuIndex.build(MATRIX, load_recipe(name)).save(path)
        sizes[name] = path.stat().st_size
        assert len(GpuIndex.open(path, load_recipe(name), MATRIX).search(QUERIES, 5)) == len(QUERIES)
        with pytest.raises(IndexDamaged, match="dim"):
            GpuIndex.open(path, load_recipe(name), MATRIX[:, :16].copy())
    assert max(sizes["gpu_exact"], sizes["gpu_cagra"]) < 1000 < 2 * N * DIM < sizes["gpu_ivf"]


@pytest.mark.skipif(not gpu_count(), reason="FAISS sees no GPU here")
@pytest.mark.parametrize("name", RECIPES)
def test_a_real_gpu_finds_what_the_cpu_finds(name: str, tmp_path: Path) -> None:
    if name == "gpu_cagra" and not hasattr(faiss, "GpuIndexCagra"):
        pytest.skip("this FAISS was built without cuVS")
    index = GpuIndex.build(MATRIX, load_recipe(name))
    index.save(tmp_path / "index")
    for each in (index, GpuIndex.open(tmp_path / "index", load_recipe(name), MATRIX)):
        truth = EXACT.search(QUERIES, 10)
        assert recall_of(each.search(QUERIES, 10, parameters=most(name)), truth).mean() >= 0.99
        without = np.arange(0, N, 3)
        filtered = each.search(QUERIES, 10, without=without, parameters=most(name))
        assert recall_of(filtered, EXACT.search(QUERIES, 10, without=without)).mean() >= 0.99
