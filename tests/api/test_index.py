"""The Python API as an engineer uses it."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmsearch
from mmsearch import Index, MmsearchError, Progress, SearchOptions
from mmsearch.core.errors import IndexMissing, UsageError
from tests.support.colours import COLOURS, ColourEncoder, save_colour


def test_public_names_are_all_there() -> None:
    for name in mmsearch.__all__:
        assert getattr(mmsearch, name) is not None
    assert set(mmsearch.__all__) <= set(dir(mmsearch))
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = mmsearch.nothing_like_this


def test_a_missing_index_is_not_made_by_accident(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing, match="mmsearch index"):
        Index.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_searching_by_a_pil_image(index: Index, photos: Path) -> None:
    index.add(photos)
    hits = index.search(image=Image.new("RGB", (50, 20), COLOURS["violet"]), k=3)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert Path(hits[0].path).stem == "violet"
    assert hits[0].score >= hits[1].score >= hits[2].score
    assert all(type(hit.score) is float for hit in hits)


@pytest.mark.parametrize("bad", [{}, {"text": "red", "image": "x.png"}, {"text": "red", "k": 0}, {"text": " "}])
def test_senseless_questions_are_refused(index: Index, photos: Path, bad: dict) -> None:
    index.add(photos)
    with pytest.raises(UsageError):
        index.search(**bad)


def test_progress_counts_every_file_once(index: Index, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"x")
    seen: list[Progress] = []
    index.add(photos, progress=seen.append)
    assert seen[0].stage == "walk" and seen[-1].stage == "index"
    done = [progress.done for progress in seen if progress.stage == "index"]
    assert done == sorted(done) and done[-1] <= 9
    assert {progress.total for progress in seen if progress.stage == "index"} == {9}


def test_many_threads_may_search(index: Index, photos: Path) -> None:
    index.add(photos)
    failures: list[BaseException] = []

    def search(colour: str) -> None:
        try:
            for _ in range(20):
                assert Path(index.search(colour, k=1)[0].path).stem == colour
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search, args=(colour,)) for colour in COLOURS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_reader_sees_what_another_one_adds_and_removes(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    index.add(photos)
    with Index.open(index.path, encoder=encoder) as writer:
        save_colour(photos / "late.png", "orange", seed=5)
        writer.add(photos)
        assert {Path(hit.path).stem for hit in index.search("orange", k=2)} == {"late", "orange"}
        writer.remove(photos / "late.png")
        assert len(index.search("orange", k=100)) == 8


def test_similarities_are_the_cosines_of_the_vectors(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    """The slow oracle: decode and encode everything again, and multiply."""
    index.add(photos)
    query = encoder.encode_texts(["blue"])[0]
    expected = {
        str(path): float(encoder.encode_images([Image.open(path)])[0] @ query) for path in photos.rglob("*.png")
    }
    hits = index.search("blue", k=8)
    assert [hit.path for hit in hits] == sorted(expected, key=lambda path: -expected[path])
    assert np.allclose([hit.parts["similarity"] for hit in hits], [expected[hit.path] for hit in hits], atol=1e-3)
    for hit in hits:
        assert hit.score == pytest.approx(sum(hit.parts.values()))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_one_base_class_catches_everything(tmp_path: Path) -> None:
    with pytest.raises(MmsearchError):
        Index.open(tmp_path / "none")


def test_object_names_are_found_on_real_photos(data: Path, tmp_path: Path) -> None:
    """Mean average precision over the object names in the labels, through the public API."""
    import json

    from mmsearch.evaluate.metrics import average_precision

    labels = [json.loads(line) for line in (data / "photos" / "labels.jsonl").read_text().splitlines()]
    with Index.open(tmp_path / "index", create=True, encoder="builtin") as index:
        index.add(data / "photos" / "images")
        precisions = []
        for name in sorted({name for label in labels for name in label["objects"]}):
            relevant = {label["image"] for label in labels if name in label["objects"]}
            ranked = [Path(hit.path).name for hit in index.search(f"a photo of a {name}.", k=len(labels))]
            precisions.append(average_precision(ranked, relevant))
    assert np.mean(precisions) >= 0.45


def test_vectors_of_ones_own(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    index.add(photos)
    queries = 3.0 * encoder.encode_texts(["green", "orange"])  # any length will do
    one = index.search(vector=queries[0], k=2)
    both = index.search(vector=queries, query_kind="text", k=2)
    assert Path(one[0].path).stem == "green" and one == both[0]
    assert Path(both[1][0].path).stem == "orange"
    assert [hit.path for hit in one] == [hit.path for hit in index.search("green", k=2, words=False)]
    for bad in (np.ones(3), np.ones((2, 5)), np.zeros(4), np.array([np.nan, 0, 0, 1])):
        with pytest.raises(MmsearchError):
            index.search(vector=bad)
    with pytest.raises(UsageError):
        index.search("red", vector=queries[0])


def test_a_search_that_meets_a_compaction_is_right(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    from mmsearch.store.local.optimize import OptimizeOptions

    index.add(photos)
    with Index.open(index.path, encoder=encoder) as other:
        assert len(index.search("red", k=8)) == 8
        (photos / "sub" / "red.png").unlink()
        other.add(photos)
        report = other.optimize(OptimizeOptions(compact=True))
        assert (report.reclaimed, report.recipe) == (1, "exact")
    for colour in set(COLOURS) - {"red"}:
        assert Path(index.search(colour, k=1)[0].path).stem == colour
    assert index.status()["documents"]["dead_rows"] == 0


def test_options_are_keywords_or_an_object_or_both(index: Index, photos: Path) -> None:
    index.add(photos)
    assert len(index.search("red", options=SearchOptions(k=5))) == 5
    assert len(index.search("red", k=2, options=SearchOptions(k=5))) == 2
    assert all(hit.parts["words"] == 0 for hit in index.search("red", words=False))
    assert index.search("red", k=3, modality="image") == index.search("red", options=SearchOptions(3, ("image",)))
    with pytest.warns(DeprecationWarning, match="min_score is called min_relevance now"):
        by_old_name = index.search("red", min_score=0.5)
    assert by_old_name == index.search("red", min_relevance=0.5)


def test_a_list_by_date_has_dates(index: Index, photos: Path) -> None:
    index.add(photos)
    hits = index.search("type:image", k=3)
    assert [hit.date for hit in hits] == sorted((hit.date for hit in hits), reverse=True) and None not in hits
    assert [(hit.score, hit.relevance, dict(hit.parts)) for hit in hits] == [(0.0, None, {})] * 3
    assert index.search("red", k=1)[0].date is None


WRONG: list[tuple[str, dict]] = [
    ("a text is a string", {"text": 5}), ("a text is a string", {"text": [5]}), ("not an image", {"image": b"x"}),
    ("array is uint8", {"image": np.zeros((5, 5, 3))}), ("an image is a path", {"image": 5}),
    ("a weight is", {"text": "red", "text_weight": "a"}),
    ("must be numbers", {"vector": ["a"]}), ("must be numbers", {"vector": [[1], [1, 2]]}),
    ("whole number", {"text": "red", "k": "5"}), ("did you mean", {"text": "red", "min_relevanc": 1}),
    ("modality is", {"text": "red", "modality": 5}), ("options must be", {"text": "red", "options": {"k": 5}}),
    ("a reranker is", {"text": "red", "reranker": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("says", "arguments"), WRONG)
def test_wrong_arguments_are_errors_of_mmsearch(index: Index, photos: Path, says: str, arguments: dict) -> None:
    index.add(photos)
    with pytest.raises(MmsearchError, match=says):
        index.search(**arguments)


def test_paths_that_are_none_and_closed_indexes_are_errors_of_mmsearch(index: Index, photos: Path) -> None:
    for call in (
        lambda: index.add(5), lambda: index.add("a\0b"), lambda: index.remove("a\0b"), lambda: Index.open(5),
        lambda: index.add("~nobody-of-that-name/x"), lambda: Index.open("~nobody-of-that-name/x"),
        lambda: index.evaluate("a\0b"), lambda: index.search_many("red"), lambda: index.search_many([5]),
        lambda: index.switch(5), lambda: index.add_embeddings(np.ones((1, 4)), [5]),
    ):  # fmt: skip
        with pytest.raises(MmsearchError):
            call()
    index.close()
    assert index.path.is_dir()
    for call in (lambda: index.search("red"), index.status, lambda: index.add(photos)):
        with pytest.raises(UsageError, match="was closed: open it again"):
            call()
    index.close()
