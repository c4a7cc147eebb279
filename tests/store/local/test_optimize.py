"""Building, tuning and switching vector indexes inside an index directory, and compaction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmsearch.core.errors import RecipeError, UsageError
from mmsearch.core.types import EncoderSpec, MediaInfo
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.store.local.catalogue import NewContent, NewSegment
from mmsearch.store.local.commit import compact
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.optimize import OptimizeOptions, _query_sets, _text_queries, optimize
from mmsearch.store.local.vectors import BuiltIndex, Vectors

DIM = 32
TEXTS = [f"query number {number}" for number in range(240)]


class HashEncoder(Encoder):
    """Texts map to fixed random vectors, off to one side as text vectors are."""

    spec = EncoderSpec("hash", "c0ffee" * 10, DIM, "none")
    input_size, batch_size, max_text_tokens = 8, 8, 32

    def prepare_image(self, image: object) -> np.ndarray:
        raise NotImplementedError

    def encode_prepared(self, inputs: np.ndarray) -> FloatArray:
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        return unit(np.stack([_noise(text) for text in texts]) + 0.5)

    def count_tokens(self, text: str) -> int:
        return len(text)


def _noise(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).standard_normal(DIM, dtype=np.float32)


def unit(rows: np.ndarray) -> FloatArray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_index(place: Path, count: int) -> IndexDirectory:
    """An index of ``count`` images whose vectors are random around 40 centres."""
    IndexDirectory.create(place, "hash", HashEncoder.spec)
    index = IndexDirectory.open(place)
    add(index, count)
    return index


def add(index: IndexDirectory, count: int, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((40, DIM))
    rows = unit(centres[random.integers(0, 40, count)] + 0.7 * random.standard_normal((count, DIM)))
    with index.writing() as writer:
        space = writer.space()
        writer.vector_file(space).append(rows, at=space.row_count)
        with writer.catalogue.transaction():
            root = (writer.catalogue.roots() or [writer.catalogue.add_root("/photos", is_relative=False)])[0]
            for number in range(count):
                path = f"{seed}-{number}.jpg"
                new = NewContent(path.encode(), "x", "image", MediaInfo(), [NewSegment(space.row_count + number)])
                content = writer.catalogue.add_content(space, new)
                writer.catalogue.put_document(root.id, path, "image", 1, 1, content)
            writer.catalogue.set_row_count(space.id, space.row_count + count)


def truth(index: IndexDirectory, queries: np.ndarray, k: int) -> list[set[int]]:
    matrix = index.matrix(index.space()).astype(np.float32)
    return [set(np.argsort(-(matrix @ query), kind="stable")[:k].tolist()) for query in queries]


def test_the_reported_recall_is_what_fresh_queries_get(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 4000)
    report = optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe="hnsw", recall=0.9))
    assert report.recipe == "hnsw"
    reported = report.tuned["text"]
    reopened = IndexDirectory.open(index.path)
    assert reopened.manifest.recipe == "hnsw"
    vectors = Vectors(reopened, reopened.space())
    assert vectors.recipe == "hnsw"
    others = HashEncoder().encode_texts([f"another caption {number}" for number in range(300)])
    recalls = []
    for fresh in (others, _text_queries(others, reopened.matrix(reopened.space()), seed=9)):
        found = vectors.search(fresh, 10, kind="text")
        true = zip(truth(index, fresh, 10), found, strict=True)
        recalls.append(np.mean([len(want & set(got.rows.tolist())) / 10 for want, got in true]))
    assert min(recalls) >= 0.88
    assert reported.recall_low - 0.02 <= min(recalls) <= reported.recall_high + 0.02


def test_what_people_asked_is_a_set_of_its_own_where_there_is_enough_of_it() -> None:
    captions, matrix = HashEncoder().encode_texts(TEXTS), HashEncoder().encode_texts(["one", "two"] * 500)
    asked = HashEncoder().encode_texts([f"asked {number}" for number in range(60)])
    composed, generic = _query_sets(captions, matrix.astype(np.float16), asked[:0])
    assert len(composed) == 600 and {row.tobytes() for row in generic} == {row.tobytes() for row in captions}
    assert not {row.tobytes() for row in composed} & {row.tobytes() for row in captions}
    joined, _ = _query_sets(captions, matrix.astype(np.float16), asked[:39])
    np.testing.assert_array_equal(joined, np.concatenate([asked[:39], composed]))
    *others, own = _query_sets(captions, matrix.astype(np.float16), asked)
    assert len(others) == 2 and own is asked


def test_rows_added_later_and_rows_removed_are_minded(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 2000)
    optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe="hnsw", recall=0.9))
    add(index, 300, seed=1)
    index = IndexDirectory.open(index.path)
    space = index.space()
    vectors = Vectors(index, space)
    matrix = index.matrix(space).astype(np.float32)
    for row in (2005, 2299):  # behind what the vector index covers
        (found,) = vectors.search(matrix[row : row + 1], 3, kind="image")
        assert found.rows[0] == row
        (others,) = vectors.search(matrix[row : row + 1], 3, kind="image", without=[row])
        assert row not in others.rows and len(others) == 3


def test_the_vector_index_answers_up_to_ten_times_what_it_was_tuned_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(tmp_path / "index", 1500)
    optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe="pq_scan", recall=0.9))
    index = IndexDirectory.open(index.path)
    vectors, queries = Vectors(index, index.space()), HashEncoder().encode_texts(TEXTS[:5])
    exact = vectors.search(queries, 101)
    monkeypatch.setattr(vectors, "_exact", None)  # nobody left who scans everything
    assert [len(one) for one in vectors.search(queries, 100)] == [100] * 5
    with pytest.raises(AttributeError):
        vectors.search(queries, 101)
    assert [len(one) for one in exact] == [101] * 5


def test_vectors_of_captions_serve_as_the_captions_themselves(tmp_path: Path) -> None:
    class Mute(HashEncoder):
        def encode_texts(self, texts: Sequence[str]) -> FloatArray:
            raise AssertionError("nothing is to be encoded")

    index = make_index(tmp_path / "index", 1500)
    vectors = HashEncoder().encode_texts(TEXTS).astype(np.float16)
    report = optimize(index, Mute(), vectors, OptimizeOptions(recipe="rabitq", recall=0.8))
    assert report.tuned["text"].queries in (300, len(TEXTS) // 2) and report.tuned["text"].reached
    with pytest.raises(UsageError, match="39 captions"):
        optimize(index, Mute(), vectors[:39])


def test_auto_stays_exact_where_that_is_quick(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 500)
    report = optimize(index, HashEncoder(), TEXTS)
    assert (report.recipe, report.tuned, list(index.path.glob("vector-index-*"))) == ("exact", {}, [])
    assert "500 vectors" in report.reason


def test_switching_leaves_no_old_files_and_going_back_leaves_none(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 1500)
    for recipe in ("hnsw", "rabitq"):
        optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe=recipe, recall=0.8))
        built = BuiltIndex.of(IndexDirectory.open(index.path))
        assert built is not None and built.recipe == recipe
        names = {file.name for file in index.path.glob("vector-index-*")}
        assert names == {built.file, built.recipe_file}
    optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe="exact"))
    assert not list(index.path.glob("vector-index-*"))
    assert Vectors(index, index.space()).recipe == "exact"


def test_a_damaged_vector_index_is_a_lost_cache_and_nothing_more(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 1500)
    optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe="hnsw", recall=0.8))
    built = BuiltIndex.of(IndexDirectory.open(index.path))
    assert built is not None
    (index.path / built.file).write_bytes(b"torn")
    index = IndexDirectory.open(index.path)
    vectors = Vectors(index, index.space())
    assert vectors.recipe == "exact"
    assert len(vectors.search(HashEncoder().encode_texts(["x"]), 5)[0]) == 5


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    source = Path(__file__).parents[3] / "indexes" / "hnsw.toml"
    mine = tmp_path / "mine.toml"
    mine.write_text(source.read_text().replace('name = "hnsw"', 'name = "mine"'))
    index = make_index(tmp_path / "index", 1200)
    report = optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe=str(mine), recall=0.8))
    assert report.recipe == "mine"
    mine.unlink()  # the index has its own copy
    index = IndexDirectory.open(index.path)
    assert Vectors(index, index.space()).recipe == "mine"


def test_compaction_keeps_every_live_vector_under_its_document(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 300)
    before = documents(index)
    with index.writing() as writer:
        for number in range(0, 300, 3):
            writer.catalogue.remove_below(1, f"0-{number}.jpg")
        writer.catalogue.drop_unused_contents()
        assert compact(writer) == 100
        assert compact(writer) == 0
    index = IndexDirectory.open(index.path)
    after = documents(index)
    assert after == {path: vector for path, vector in before.items() if int(path[2:-4]) % 3}
    space = index.space()
    assert (space.row_count, index.catalogue.dead_rows(space.id).tolist()) == (200, [])
    assert [file.name for file in index.path.glob("vectors-*")] == [space.file]
    add(index, 50, seed=1)
    assert len(documents(IndexDirectory.open(index.path))) == 250


def documents(index: IndexDirectory) -> dict[str, bytes]:
    space = index.space()
    matrix = index.matrix(space)
    return {
        found.path: matrix[found.row].tobytes() for found in index.catalogue.find_rows(space.id, range(space.row_count))
    }


@pytest.mark.parametrize("bad", [{"recall": 0.0}, {"recall": 1.5}, {"k": 0}])
def test_senseless_targets_are_refused(bad: dict) -> None:
    with pytest.raises(UsageError):
        OptimizeOptions(**bad)


def test_unknown_recipes_and_too_few_queries_are_refused(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", 100)
    with pytest.raises(RecipeError, match="nothing-like-it"):
        optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe="nothing-like-it"))
    with pytest.raises(RecipeError, match="100 and is searched exactly"):
        optimize(index, HashEncoder(), TEXTS, OptimizeOptions(recipe="hnsw"))
    with pytest.raises(UsageError, match="at least"):
        optimize(index, HashEncoder(), TEXTS[:10])
