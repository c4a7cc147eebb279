"""Vectors that were made elsewhere: checked, found, kept by later runs, and not embedded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.core.errors import EncoderError, UsageError, VectorError
from mmsearch.ingest import embeddings
from mmsearch.ingest.datasets import ImportOptions
from mmsearch.query.calibrate import calibration
from mmsearch.store.local.store import LocalStore
from tests.support.colours import COLOURS, ColourEncoder


def colour_vectors() -> np.ndarray:
    return ColourEncoder().encode_texts(list(COLOURS))


def rows(modality: str = "image") -> list[dict[str, Any]]:
    return [{"path": f"https://example.org/a//{colour}.jpg?x=1", "modality": modality} for colour in COLOURS]


def documents(index: Index) -> dict[str, str | None]:
    return dict(index._directory.catalogue.sql.execute("SELECT path, caption FROM documents").fetchall())


def test_added_vectors_are_found_and_nothing_is_encoded(index: Index, encoder: ColourEncoder) -> None:
    report = index.add_embeddings(colour_vectors(), rows())
    assert (report.indexed, report.segments, encoder.encoded_texts + encoder.encoded_images) == (8, 8, 0)
    for colour in COLOURS:
        hit = index.search(colour, k=1)[0]
        assert hit.path == f"https://example.org/a//{colour}.jpg?x=1"
        assert hit.parts["similarity"] == pytest.approx(1, abs=1e-3)


def test_adding_the_same_again_changes_nothing(index: Index) -> None:
    index.add_embeddings(colour_vectors(), rows())
    again = index.add_embeddings(colour_vectors(), rows())
    assert (again.indexed, again.unchanged, again.segments) == (0, 8, 0)
    assert index.status()["vectors"] == 8
    changed = [{**row, "caption": "new"} for row in rows()[:3]]
    report = index.add_embeddings(colour_vectors()[:3], changed)
    assert (report.updated, report.indexed, report.unchanged) == (3, 0, 0)
    assert index.status()["documents"]["image"] == 8
    assert list(documents(index).values()).count("new") == 3
    assert index.verify().clean


def test_many_imported_vectors_get_a_calibration_at_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search itself would make up for few of them only, and then never know what a score means here."""
    monkeypatch.setattr(calibration, "LAZY", 7)
    index.add_embeddings(colour_vectors(), rows())
    assert calibration.load_calibration(LocalStore(index._directory)).covered == 8
    monkeypatch.setattr(Index, "encoder", lambda self, **more: (_ for _ in ()).throw(EncoderError("not here")))
    others = [{**row, "path": f"{row['path']}&again"} for row in rows()]
    assert index.add_embeddings(colour_vectors()[:, ::-1].copy(), others).indexed == 8
    assert calibration.load_calibration(LocalStore(index._directory)).covered == 8


def test_neither_indexing_nor_verifying_misses_files_of_a_dataset(index: Index, photos: Path) -> None:
    index.add_embeddings(colour_vectors(), rows(), dataset="laion")
    index.add(photos)
    assert index.add(photos).removed == 0
    assert index.verify(mend=True, read_bytes=True).clean
    assert index.status()["documents"]["image"] == 16
    assert index.status()["roots"][0] == "dataset:laion"
    assert index.remove("dataset:laion") == 8
    assert index.status()["documents"]["image"] == 8
    assert index.verify().clean


def test_rows_with_one_path_are_the_segments_of_one_document(index: Index) -> None:
    moments = [
        {"path": "film.mp4", "modality": "video", "start_s": float(n), "end_s": n + 1.0, "duration_s": 8.0}
        for n in range(8)
    ]
    report = index.add_embeddings(colour_vectors(), moments)
    assert (report.indexed, report.segments) == (1, 8)
    hit = index.search("blue", k=5)
    assert [(one.path, one.start_s, one.segment) for one in hit] == [("film.mp4", 2.0, 2)]
    assert index.verify().clean


def test_passages_are_found_as_texts(index: Index) -> None:
    texts = [{"path": "book.txt", "modality": "text", "text": f"the {colour} one"} for colour in COLOURS]
    index.add_embeddings(colour_vectors(), texts)
    assert index.search("violet", k=1, modality="text")[0].text == "the violet one"


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((8, 5)) / np.sqrt(5), r"\(n, 4\).*\(8, 5\)"),
        (np.ones(8), r"\(8,\)"),
        (np.ones((8, 4)), "not of length 1.*row 0 has 2"),
        (np.full((8, 4), np.nan), "row 0 .* not finite"),
        (np.eye(8, 4, dtype=np.int64), "float"),
    ],
)
def test_vectors_that_cannot_be_right_are_refused(index: Index, vectors: np.ndarray, message: str) -> None:
    with pytest.raises(VectorError, match=message):
        index.add_embeddings(vectors, rows())
    assert index.status()["vectors"] == 0


def test_vectors_are_brought_to_length_1_where_that_is_asked_for(index: Index) -> None:
    index.add_embeddings(7 * colour_vectors(), rows(), normalize=True)
    assert index.verify().clean
    with pytest.raises(VectorError, match=r"row 1 .* zeros"):
        index.add_embeddings([[1.0, 0, 0, 0], [0.0, 0, 0, 0]], rows()[:2], normalize=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"modality": "image"}, "row 0 has path None"),
        ({"path": "a", "modality": "picture"}, "modality 'picture'"),
        ({"path": "a", "modality": "image", "colour": "red"}, "unknown keys .colour"),
        ({"path": 3, "modality": "image"}, "row 0 has path 3"),
    ],
)
def test_rows_that_lack_something_are_refused(index: Index, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        index.add_embeddings(colour_vectors()[:1], [row])
    with pytest.raises(UsageError, match="8 vectors and 1 rows"):
        index.add_embeddings(colour_vectors(), rows()[:1])
    assert documents(index) == {}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=12), max_size=4), st.integers(1, 5))
def test_any_sequence_of_imports_ends_as_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[tuple[int, int]]], batch: int
) -> None:
    """The oracle: a dict from path to the colours of its segments, batch after batch."""
    vectors = colour_vectors()
    expected: dict[str, list[int]] = {}
    with (
        pytest.MonkeyPatch.context() as patch,
        Index.open(tmp_path_factory.mktemp("any") / "index", create=True, encoder=ColourEncoder()) as index,
    ):
        patch.setattr(embeddings, "BATCH", batch)
        for call in calls:
            given_rows = [{"path": f"p{path}", "modality": "image"} for path, _ in call]
            index.add_embeddings(vectors[[colour for _, colour in call]].reshape(-1, 4), given_rows)
            for start in range(0, len(call), batch):
                part: dict[str, list[int]] = {}
                for path, colour in call[start : start + batch]:
                    part.setdefault(f"p{path}", []).append(colour)
                expected.update(part)
        space = index._directory.space()
        found = index._directory.catalogue.find_rows(space.id, range(space.row_count))
        matrix = index._directory.matrix(space).astype(np.float32)
        stored: dict[str, dict[int, int]] = {}
        for segment in found:
            stored.setdefault(segment.path, {})[segment.ordinal] = int(np.argmax(vectors @ matrix[segment.row]))
        assert {path: [parts[n] for n in sorted(parts)] for path, parts in stored.items()} == expected
        assert index.verify().clean


# Folders of clip-retrieval


def write_part(folder: Path, number: int, vectors: np.ndarray, table: dict[str, list[Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reading parquet takes pyarrow")
    from pyarrow import parquet

    (folder / "img_emb").mkdir(parents=True, exist_ok=True)
    (folder / "metadata").mkdir(exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors)
    parquet.write_table(pyarrow.table(table), folder / "metadata" / f"metadata_{number}.parquet")


@pytest.fixture
def laion(tmp_path: Path) -> Path:
    folder = tmp_path / "laion"
    vectors, names = colour_vectors().astype(np.float16), list(COLOURS)
    for number, part in enumerate((slice(0, 5), slice(5, 8))):
        table = {
            "image_path": [f"00000000{n}" for n in range(len(names[part]))],
            "caption": [f"a {name} thing" for name in names[part]],
            "url": [f"https://example.org/{name}.jpg" for name in names[part]],
            "width": [40] * len(names[part]),
            "height": [30] * len(names[part]),
        }
        write_part(folder, 10 * number + 2, vectors[part], table)
    return folder


def test_a_folder_of_clip_retrieval_is_imported(index: Index, laion: Path, encoder: ColourEncoder) -> None:
    report = index.import_folder(laion)
    assert (report.indexed, encoder.encoded_images) == (8, 0)
    assert index.search("green", k=1)[0].path == "https://example.org/green.jpg"
    assert documents(index)["https://example.org/black.jpg"] == "a black thing"
    assert index.import_folder(laion).unchanged == 8
    assert index.verify().clean


def write_captions(folder: Path, number: int, vectors: np.ndarray) -> None:
    (folder / "text_emb").mkdir(exist_ok=True)
    np.save(folder / "text_emb" / f"text_emb_{number}.npy", vectors)


def test_captions_with_vectors_become_texts(index: Index, laion: Path, encoder: ColourEncoder) -> None:
    write_captions(laion, 2, colour_vectors()[:5].astype(np.float16))
    with pytest.raises(UsageError, match="part 12"):
        index.import_folder(laion)
    write_captions(laion, 12, colour_vectors()[5:].astype(np.float16))
    report = index.import_folder(laion)
    assert (report.indexed, report.segments, encoder.encoded_texts) == (16, 16, 0)
    for colour in COLOURS:
        hit = index.search(f"{colour} type:text", k=1, words=False)[0]
        assert (hit.path, hit.text) == (f"https://example.org/{colour}.jpg", f"a {colour} thing")
        image = index.search(f"{colour} type:image", k=1, words=False)[0]
        assert (image.path, image.text) == (f"https://example.org/{colour}.jpg", None)
    assert {"dataset:laion", "dataset:laion/captions"} <= set(index.status()["roots"])
    assert index.import_folder(laion).unchanged == 16
    assert index.verify().clean
    assert index.remove("dataset:laion/captions") == 8
    assert index.import_folder(laion, options=ImportOptions(captions=False)).unchanged == 8


def test_a_folder_of_captions_alone_needs_no_addresses(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    write_part(folder, 0, np.zeros((1, 4)), {"caption": ["a red thing", "", None, "a blue thing"]})
    (folder / "img_emb" / "img_emb_0.npy").unlink()
    write_captions(folder, 0, colour_vectors()[[0, 1, 1, 2]])
    assert index.import_folder(folder).indexed == 2, "an empty caption says nothing"
    hit = index.search("blue type:text", k=1, words=False)[0]
    assert (hit.path, hit.text) == ("metadata_0.parquet/3", "a blue thing")
    write_captions(folder, 0, np.ones((4, 7)))
    with pytest.raises(VectorError, match=r"\(4, 7\).*--no-captions"):
        index.import_folder(folder)


def test_the_column_of_paths_can_be_named(index: Index, laion: Path) -> None:
    index.import_folder(laion, options=ImportOptions(name="keys", path_column="image_path"))
    assert "000000004" in documents(index)
    with pytest.raises(UsageError, match=r"no column nothing.*image_path"):
        index.import_folder(laion, options=ImportOptions(path_column="nothing"))


def test_folders_that_do_not_fit_are_refused_before_anything_is_written(index: Index, laion: Path) -> None:
    with pytest.raises(UsageError, match="no folder of clip-retrieval"):
        index.import_folder(laion / "img_emb")
    write_part(laion, 30, np.ones((2, 5)), {"url": ["a", "b"]})
    with pytest.raises(VectorError, match=r"\(2, 5\)"):
        index.import_folder(laion)
    write_part(laion, 30, colour_vectors()[:2], {"url": ["a", "b", "c"]})
    with pytest.raises(UsageError, match=r"2 vectors.*3 rows"):
        index.import_folder(laion)
    (laion / "metadata" / "metadata_30.parquet").unlink()
    with pytest.raises(UsageError, match="part 30"):
        index.import_folder(laion)
    (laion / "metadata" / "metadata_30.parquet").write_bytes(b"no table")
    with pytest.raises(UsageError, match="cannot be read as a parquet"):
        index.import_folder(laion)
    assert index.status()["vectors"] == 0


def test_an_import_that_stops_in_the_middle_goes_on(index: Index, laion: Path) -> None:
    write_part(laion, 30, 3 * colour_vectors()[:1], {"url": ["late"]})
    with pytest.raises(VectorError, match="img_emb_30"):
        index.import_folder(laion)
    assert index.status()["documents"]["image"] == 8
    report = index.import_folder(laion, options=ImportOptions(normalize=True))
    assert report.indexed == 1
    assert index.verify().clean
