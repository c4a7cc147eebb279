"""Indexes built by recipes, against exact search over the same rows."""

from __future__ import annotations

import json
import os
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import IndexDamaged, RecipeError, VectorError
from mmsearch.store.local.recipes import Measured, Recipe, choose, list_recipes, load_recipe
from mmsearch.store.local.vector_index import (
    AnnIndex,
    ExactIndex,
    Neighbours,
    ann_building,
    ann_file,
    tune,
)
from mmsearch.store.local.vector_index import ann as ann_module
from mmsearch.store.local.vector_index.tuning import confidence, recall_of

N, DIM = 3000, 32
CPU_RECIPES = [r.name for r in list_recipes() if r.kind == "ann" and not r.needs_gpu]


def clustered(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, DIM))
    x = centres[rng.integers(0, 40, n)] + 0.6 * rng.standard_normal((n, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


MATRIX = clustered(N).astype(np.float16)
QUERIES = clustered(60, 1)
EXACT = ExactIndex(MATRIX)


@pytest.fixture(scope="module", params=CPU_RECIPES)
def index(request: pytest.FixtureRequest) -> AnnIndex:
    return AnnIndex.build(MATRIX, load_recipe(request.param), threads=1)


@pytest.fixture(scope="module")
def scan() -> AnnIndex:
    return AnnIndex.build(MATRIX, load_recipe("pq_scan"), threads=1)


def recall(found: list[Neighbours], truth: list[Neighbours]) -> float:
    return float(np.mean([len(set(f.rows) & set(t.rows)) / len(t) for f, t in zip(found, truth, strict=True)]))


def no_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let filters go through the index even at the size of a test."""
    monkeypatch.setattr(ann_module, "EXACT_ROWS", 0)
    monkeypatch.setattr(ann_module, "EXACT_SHARE", 0.0)


def test_every_recipe_finds_nearly_all_with_exact_scores(index: AnnIndex) -> None:
    most = {p.name: p.grid[-1] for p in index.recipe.parameters}
    truth = EXACT.search(QUERIES, 10)
    found = index.search(QUERIES, 10, parameters=most)
    assert recall(found, truth) >= 0.98
    for f, t in zip(found, truth, strict=True):
        same = np.intersect1d(f.rows, t.rows, return_indices=True)
        np.testing.assert_array_equal(f.scores[same[1]], t.scores[same[2]])
        assert (np.diff(f.scores) <= 0).all() and len(set(f.rows)) == 10


def test_more_effort_finds_more(index: AnnIndex) -> None:
    truth = EXACT.search(QUERIES, 10)
    least = recall(index.search(QUERIES, 10, parameters={p.name: p.low for p in index.recipe.parameters}), truth)
    most = recall(index.search(QUERIES, 10, parameters={p.name: p.grid[-1] for p in index.recipe.parameters}), truth)
    assert least < most


@pytest.mark.parametrize("share", [1.0, 0.9, 0.4, 0.05])
def test_filters_give_k_allowed_rows(index: AnnIndex, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    no_shortcut(monkeypatch)
    rng = np.random.default_rng(5)
    only = rng.permutation(N)[: int(share * N)]
    without = rng.permutation(N)[:100]
    allowed = np.setdiff1d(only, without)
    found = index.search(QUERIES[:20], 10, only=only, without=without)
    truth = EXACT.search(QUERIES[:20], 10, only=allowed)
    assert all(len(f) == 10 and np.isin(f.rows, allowed).all() for f in found)
    assert recall(found, truth) >= 0.8


def test_narrow_filters_are_exact(index: AnnIndex) -> None:
    only = np.random.default_rng(2).permutation(N)[:700]
    truth = EXACT.search(QUERIES, 7, only=only)
    for f, t in zip(index.search(QUERIES, 7, only=only), truth, strict=True):
        np.testing.assert_array_equal(f.rows, t.rows)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_k_rows_come_whenever_k_exist(scan: AnnIndex, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, N + 3))
    only = data.draw(st.none() | st.integers(0, N).map(lambda m: np.arange(N - m, N)))
    without = data.draw(st.none() | st.integers(0, N).map(np.arange))
    allowed = np.setdiff1d(np.arange(N) if only is None else only, [] if without is None else without)
    shortcut = data.draw(st.sampled_from([0, 50_000]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann_module, "EXACT_ROWS", shortcut)
        found = scan.search(QUERIES[:1], k, only=only, without=without)[0]
    assert len(found) == min(k, len(allowed)) == len(set(found.rows.tolist()))
    assert np.isin(found.rows, allowed).all()


def test_rows_behind_the_index_are_found_and_can_be_taken_in(index: AnnIndex) -> None:
    grown = np.concatenate([MATRIX, clustered(200, 8).astype(np.float16)])
    behind = AnnIndex.build(MATRIX, index.recipe, threads=1).with_matrix(grown)
    assert (behind.covered, len(behind)) == (N, N + 200)
    late = grown[N:].astype(np.float32)
    nearest = [n.rows[0] for n in behind.search(late, 1)]
    assert nearest == list(range(N, N + 200))
    without = np.arange(N, N + 100)
    assert not np.isin(behind.search(late[:5], 3, without=without)[0].rows, without).any()
    assert behind.add() == 200 and behind.covered == N + 200 and behind.add() == 0
    most = {p.name: p.grid[-1] for p in index.recipe.parameters}
    nearest = [n.rows[0] for n in behind.search(late, 1, parameters=most)]
    assert np.mean(np.array(nearest) == np.arange(N, N + 200)) >= 0.98


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="only Linux tells what a process maps")
def test_an_index_is_mapped_unless_faiss_copies_it_anyway(index: AnnIndex, tmp_path: Path) -> None:
    path = tmp_path / "some.faiss"
    index.save(path)
    opened = AnnIndex.open(path, index.recipe, MATRIX)
    mapped = str(path) in Path("/proc/self/maps").read_text()
    assert mapped == (not re.search(r"x4fsr?$", index.recipe.factory))
    assert opened.covered == N


@pytest.mark.parametrize("mapped", [True, False])
def test_saved_and_opened_it_answers_the_same(index: AnnIndex, tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "codes.faiss"
    index.save(path)
    opened = AnnIndex.open(path, index.recipe, MATRIX, mapped=mapped)
    for a, b in zip(opened.search(QUERIES, 5), index.search(QUERIES, 5), strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
    if mapped:
        with pytest.raises(VectorError, match="mapped=False"):
            opened.add()
    assert [p.name for p in tmp_path.iterdir()] == ["codes.faiss"]
    assert ann_file.read_seal(path)["rows"] == N


def test_a_failed_save_leaves_the_old_file(scan: AnnIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "codes.faiss"
    scan.save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        scan.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("cut", [0, 1, 10, 500, 0.5, 0.99])
def test_a_torn_file_is_damaged(scan: AnnIndex, tmp_path: Path, cut: float) -> None:
    path = tmp_path / "codes.faiss"
    scan.save(path)
    size = path.stat().st_size
    os.truncate(path, int(size * cut) if isinstance(cut, float) else max(0, size - cut) if cut else 0)
    with pytest.raises(IndexDamaged, match="build it again"):
        AnnIndex.open(path, scan.recipe, MATRIX)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_near_an_end_is_damaged(
    scan: AnnIndex, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "codes.faiss"
    scan.save(path)
    body = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(body)
    try:
        opened = AnnIndex.open(path, scan.recipe, MATRIX)
    except IndexDamaged:
        return
    # Only the text of the seal that nothing depends on (FAISS's version) may change unnoticed.
    assert len(opened.search(QUERIES[:1], 3)[0]) == 3
    assert place > ann_file.read_seal(path)["bytes"]


def test_files_about_something_else_are_refused(scan: AnnIndex, tmp_path: Path) -> None:
    path = tmp_path / "codes.faiss"
    with pytest.raises(IndexDamaged, match="cannot read"):
        AnnIndex.open(path, scan.recipe, MATRIX)
    scan.save(path)
    with pytest.raises(IndexDamaged, match="other vectors"):
        AnnIndex.open(path, scan.recipe, MATRIX[:-1])
    with pytest.raises(IndexDamaged, match="other vectors"):
        AnnIndex.open(path, scan.recipe, MATRIX[::-1].copy())
    with pytest.raises(IndexDamaged, match="recipe 'pq_scan', 'hnsw' is expected"):
        AnnIndex.open(path, load_recipe("hnsw"), MATRIX)
    with pytest.raises(IndexDamaged, match="dim 32, 16 is expected"):
        AnnIndex.open(path, scan.recipe, np.ascontiguousarray(MATRIX[:, :16]))
    seal = json.dumps([1]).encode()
    path.write_bytes(b"x" * 99 + seal + struct.pack("<I", len(seal)) + ann_file.MAGIC)
    with pytest.raises(IndexDamaged, match="length does not fit"):
        AnnIndex.open(path, scan.recipe, MATRIX)


def test_concurrent_searches_with_different_parameters(index: AnnIndex) -> None:
    low = {p.name: p.low for p in index.recipe.parameters}
    high = {p.name: p.grid[-1] for p in index.recipe.parameters}
    jobs = [(QUERIES[i : i + 1], p) for i in range(60) for p in (low, high)]
    expected = [index.search(q, 5, parameters=p)[0].rows.tolist() for q, p in jobs]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda job: index.search(job[0], 5, parameters=job[1])[0].rows.tolist(), jobs))
    assert found == expected


def test_no_global_thread_setting_is_changed(scan: AnnIndex) -> None:
    before = faiss.omp_get_max_threads()
    scan.search(QUERIES, 3, threads=before + 1)
    assert faiss.omp_get_max_threads() == before
    with pytest.raises(VectorError):
        scan.search(QUERIES[:, :5], 3)
    assert faiss.omp_get_max_threads() == before


def test_wrong_use_is_refused(scan: AnnIndex) -> None:
    with pytest.raises(VectorError, match=r"\(1, 31\).*\(q, 32\)"):
        scan.search(QUERIES[:1, :31], 3)
    with pytest.raises(RecipeError, match="no search parameter 'nprobe'"):
        scan.search(QUERIES[:1], 3, parameters={"nprobe": 3})
    with pytest.raises(RecipeError, match="not one that builds"):
        AnnIndex.build(MATRIX, load_recipe("exact"))
    with pytest.raises(RecipeError, match="odd"):
        AnnIndex.build(np.zeros((9, 7), np.float16), load_recipe("pq_scan"))
    with pytest.raises(RecipeError, match="FAISS cannot build 'Nonsense'"):
        AnnIndex.build(MATRIX, replace(load_recipe("pq_scan"), factory="Nonsense"))
    with pytest.raises(RecipeError, match="FAISS cannot build"):
        AnnIndex.build(MATRIX[:3], load_recipe("pq_scan"))


@pytest.mark.parametrize("name", ["ivf_pq", "ivf_flat", "ivf_rabitq"])
def test_lists_found_through_a_projection_are_nearly_always_the_nearest(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    spectrum = np.arange(1, 257) ** -0.3
    rows = rng.standard_normal((6000, 256)) * spectrum
    matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    monkeypatch.setattr(ann_building, "ADD_BLOCK", 2000)
    recipe = load_recipe(name)
    index = AnnIndex.build(matrix, recipe, threads=1)
    ivf = faiss.downcast_index(index._core)
    assert isinstance(faiss.downcast_index(ivf.quantizer), faiss.IndexFlat) and ivf.clustering_index is None
    nearest = ivf.quantizer.assign(matrix.astype(np.float32), 1)[:, 0]
    sizes = np.array([ivf.invlists.list_size(i) for i in range(ivf.nlist)])
    assert sizes.sum() == len(matrix)
    moved = np.abs(sizes - np.bincount(nearest, minlength=ivf.nlist)).sum() / 2
    assert moved <= 0.02 * len(matrix)
    exact = ivf.quantizer
    with ann_building.quick_assignment(ivf, len(matrix)):
        assert isinstance(faiss.downcast_index(ivf.quantizer), faiss.IndexRefine)
        assert np.mean(ivf.quantizer.assign(matrix.astype(np.float32), 1)[:, 0] == nearest) >= 0.98
    assert ivf.quantizer.this == exact.this
    found = index.search(matrix[:50].astype(np.float32), 10, parameters={p.name: p.grid[-1] for p in recipe.parameters})
    assert recall(found, ExactIndex(matrix).search(matrix[:50].astype(np.float32), 10)) >= 0.98


def test_text_vectors_take_their_share_of_the_training_sample_across_the_gap() -> None:
    recipe = load_recipe("ivf_pq")
    shared = replace(recipe, training=replace(recipe.training, vectors=400, points_per_list=1, text_share=0.1))
    away = QUERIES + 5.0
    sample = ann_building.training_sample(MATRIX, shared, away, 0)
    assert len(sample) == 400
    images, texts = sample[:360], sample[360:]
    assert {row.tobytes() for row in images} <= {row.tobytes() for row in MATRIX.astype(np.float32)}
    np.testing.assert_allclose(texts.mean(axis=0), images.mean(axis=0), atol=1e-5)
    plain = ann_building.training_sample(MATRIX, replace(shared, training=recipe.training), away, 0)
    assert {row.tobytes() for row in plain} <= {row.tobytes() for row in MATRIX.astype(np.float32)}


def test_tuning_reaches_its_target_on_held_out_queries(index: AnnIndex) -> None:
    queries = clustered(300, 4)
    tuned = tune(index, queries, 10, 0.9, threads=1)
    assert tuned.reached and tuned.queries == 150 and tuned.kind == "text"
    fresh = clustered(300, 11)
    again = recall_of(index.search(fresh, 10, parameters=tuned.parameters), EXACT.search(fresh, 10)).mean()
    assert tuned.recall_low - 0.02 <= again <= tuned.recall_high + 0.02
    assert tuned.recall_low <= tuned.recall <= tuned.recall_high
    assert 0 < tuned.latency.p50_ms <= tuned.latency.p95_ms <= tuned.latency.p99_ms


def test_tuning_serves_every_set_of_queries_and_reports_the_worst(index: AnnIndex) -> None:
    """Vectors of the index itself, and queries between its clusters: which are harder depends on the recipe."""
    inside, between = MATRIX[:200].astype(np.float32), np.random.default_rng(5).standard_normal((120, DIM), np.float32)
    for first, second in ((inside, between), (between, inside)):
        tuned = tune(index, first, 10, 0.9, also=[second], threads=1)
        recalls = {
            len(one) // 2: recall_of(index.search(one, 10, parameters=tuned.parameters), EXACT.search(one, 10)).mean()
            for one in (first, second)
        }
        assert tuned.reached and min(recalls.values()) >= 0.88
        assert tuned.recall == pytest.approx(recalls[tuned.queries], abs=0.05)
        assert tuned.recall <= min(recalls.values()) + 0.03
    with pytest.raises(VectorError, match="39 text queries were given"):
        tune(index, inside, 10, 0.9, also=[between[:39]])


def test_tuning_out_of_reach_says_so() -> None:
    coarse = load_recipe("rabitq")
    coarse = replace(coarse, parameters=(replace(coarse.parameters[0], grid=(1, 2), default=1),))
    tuned = tune(AnnIndex.build(MATRIX, coarse, threads=1), clustered(100, 4), 10, 1.0, threads=1)
    assert not tuned.reached and not tuned.pays
    assert tuned.parameters == {"k_factor": 2}


def test_tuning_refuses_too_little(scan: AnnIndex) -> None:
    with pytest.raises(VectorError, match="39 text queries were given"):
        tune(scan, QUERIES[:39], 10, 0.9)
    with pytest.raises(VectorError, match=r"target is 1\.5"):
        tune(scan, QUERIES, 10, 1.5)


def test_recall_counts_ties_and_missing_truth() -> None:
    def answer(scores: list[float], rows: list[int]) -> Neighbours:
        return Neighbours(np.array(scores, np.float32), np.array(rows, np.int64))

    truth = [answer([0.9, 0.5], [1, 2]), answer([], []), answer([0.9, 0.5], [1, 2])]
    found = [answer([0.9, 0.5], [1, 7]), answer([], []), answer([0.5, 0.4], [2, 3])]
    assert recall_of(found, truth).tolist() == [1.0, 1.0, 0.5]


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        hard = rng.random(200) < 0.3  # neighbours of a hard query are missed together
        recalls = rng.binomial(10, np.where(hard, 0.8, 1.0)) / 10
        low, high = confidence(recalls, 10)
        covered += low <= 0.94 <= high
    assert 0.92 <= covered / 400 <= 1.0
    assert confidence(np.ones(100), 10)[0] == pytest.approx(0.963, abs=1e-3)


def measured(name: str, ms: float, recall: float = 0.995, n: int = 1_000_000) -> Recipe:
    figure = Measured(n, 512, recall, 1.0, ms, 1.0, 100.0, "test")
    return replace(load_recipe("pq_scan"), name=name, measured=(figure,), min_vectors=1000, max_vectors=10**7)


def test_auto_is_exact_until_something_measured_is_faster() -> None:
    exact = load_recipe("exact")
    shelf = [exact, measured("slow", 9.0), measured("fast", 2.0), measured("wild", 0.1, recall=0.9)]
    assert choose(10**6, 5.0, recipes=shelf).name == "exact"
    assert choose(10**6, 60.0, recipes=shelf).name == "fast"
    assert choose(10**8, 60.0, recipes=shelf).name == "exact"
    gpu = replace(measured("gpu", 0.5), needs_gpu=True)
    assert choose(10**6, 60.0, recipes=[*shelf, gpu]).name == "fast"
    assert choose(10**6, 60.0, recipes=[*shelf, gpu], has_gpu=True).name == "gpu"
    with pytest.raises(RecipeError, match="exact search"):
        choose(10**6, 60.0, recipes=shelf[1:])


def test_auto_compares_measurements_of_one_size_only() -> None:
    """A recipe that was only measured at a tenth of the size looks ten times as fast as it is."""
    both = replace(
        measured("both", 2.0),
        measured=(*measured("", 0.9, n=100_000).measured, *measured("", 2.0).measured),
    )
    shelf = [load_recipe("exact"), both, measured("small", 0.5, n=100_000)]
    assert choose(10**6, 60.0, recipes=shelf).name == "both"
    assert choose(200_000, 60.0, recipes=shelf).name == "small"
