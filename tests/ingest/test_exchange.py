"""What an index holds, written as Parquet, and made an index of again."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.core.errors import EncoderMismatch, MmsearchError, UsageError, VectorError
from mmsearch.core.types import MediaInfo
from mmsearch.ingest.exchange import describe, export_parquet, import_parquet, parquet_files
from mmsearch.store.base import NewDocument
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.store import LocalStore
from tests.store.contract import FILTERS, SPEC, documents
from tests.support.colours import ColourEncoder, save_colour
from tests.support.memory_store import MemoryStore
from tests.support.sound import save_video, srt


def local(folder: Path) -> LocalStore:
    IndexDirectory.create(folder, "contract", SPEC)
    return LocalStore.open(folder)


@pytest.fixture
def filled(tmp_path: Path) -> LocalStore:
    store = local(tmp_path / "index")
    made, vectors = documents(200)
    store.upsert(made, vectors)
    return store


def held(store: LocalStore | MemoryStore) -> dict[tuple[str, str], tuple[NewDocument, bytes]]:
    """Documents with their vectors, by place."""
    everything = {}
    for part in store.export():
        ends = np.cumsum([len(one.segments) for one in part.documents])[:-1]
        for one, vectors in zip(part.documents, np.split(part.vectors, ends), strict=True):
            everything[one.root, one.path] = (replace(one, segments=tuple(one.segments)), vectors.tobytes())
    return everything


@pytest.mark.parametrize("file_rows", [40, 10**6])
def test_a_store_comes_back_bit_by_bit(filled: LocalStore, tmp_path: Path, file_rows: int) -> None:
    """From one file or several, into a directory and into another kind of store; twice changes nothing."""
    report = export_parquet(filled, tmp_path / "out", file_rows=file_rows)
    files = parquet_files(tmp_path / "out")
    assert (report.documents, report.files) == (200, len(files)) and len(files) == 1
    assert report.bytes == sum(path.stat().st_size for path in files)
    said = describe(tmp_path / "out")
    assert said is not None and (said.model, said.spec) == ("contract", SPEC)
    for other in (local(tmp_path / "other"), MemoryStore(SPEC)):
        assert import_parquet(other, tmp_path / "out").indexed == 200
        assert held(other) == held(filled)
        again = import_parquet(other, tmp_path / "out")
        assert (again.indexed, again.updated) == (0, 200) and held(other) == held(filled)


def test_files_end_between_documents(filled: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsearch.store.local.store.EXPORTED", 7)
    monkeypatch.setattr("mmsearch.ingest.exchange.READ_ROWS", 3)
    report = export_parquet(filled, tmp_path / "out", file_rows=40)
    assert report.files > 5
    places = [
        {*zip(table["root"].to_pylist(), table["path"].to_pylist(), strict=True)}
        for table in map(pq.read_table, parquet_files(tmp_path / "out"))
    ]
    assert sum(map(len, places)) == len(set.union(*places)) == 200
    other = MemoryStore(SPEC)
    import_parquet(other, tmp_path / "out")
    assert held(other) == held(filled)


def test_filters_choose_what_is_exported(filled: LocalStore, tmp_path: Path) -> None:
    report = export_parquet(filled, tmp_path / "out", FILTERS["a third"])
    paths = pq.read_table(tmp_path / "out")["path"].to_pylist()
    assert report.documents == len({*paths}) == filled.count(FILTERS["a third"]) and {p[0] for p in paths} == {"a"}


def test_an_empty_store_has_a_file_with_the_columns(tmp_path: Path) -> None:
    export_parquet(MemoryStore(SPEC), tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    assert len(table) == 0 and "vector" in table.column_names
    assert import_parquet(MemoryStore(SPEC), tmp_path / "out").indexed == 0


def test_what_is_there_stays(filled: LocalStore, tmp_path: Path) -> None:
    """A folder with something in it is not written to, and an export that fails leaves nothing behind."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="new or empty"):
        export_parquet(filled, tmp_path / "full")
    before = {path.name for path in tmp_path.iterdir()}

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_parquet(filled, tmp_path / "out", progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_a_file_of_another_program(tmp_path: Path, kind: pa.DataType) -> None:
    """Three columns suffice, in any order; lists may be of any float type and need no fixed length."""
    vectors = documents(3)[1][:2]
    table = pa.table(
        {
            "vector": pa.array([row.astype(kind.to_pandas_dtype()) for row in vectors], pa.list_(kind)),
            "modality": ["image", "image"],
            "path": ["https://example.org/1.jpg", "https://example.org/2.jpg"],
            "likes": [3, 4],
        }
    )
    pq.write_table(table, tmp_path / "theirs.parquet")
    store = MemoryStore(SPEC)
    assert import_parquet(store, tmp_path / "theirs.parquet").indexed == 2
    [first, _] = held(store).values()
    assert (first[0].root, first[0].path, first[0].info) == (
        "dataset:parquet",
        "https://example.org/1.jpg",
        MediaInfo(),
    )
    assert first[1] == vectors[0].tobytes()


def rewritten(folder: Path, **columns: list[object]) -> Path:
    """The exported files with some columns replaced, as a program would write them that knows nothing of mmsearch."""
    [path] = parquet_files(folder)
    table = pq.read_table(path).slice(0, 3).replace_schema_metadata(None)
    for name, values in columns.items():
        place = table.column_names.index(name)
        kind = pa.array(values).type if name == "vector" else table.schema.field(name).type
        table = table.set_column(place, pa.field(name, kind), pa.array(values, kind))
    pq.write_table(table, folder / "part-00000.parquet")
    return folder


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"vector": [[1.0, 0.0]] * 3}, r"vectors of \[2\] numbers, the encoder of this index makes 6"),
        ({"vector": [[3.0] * 6] * 3}, "not of length 1"),
        ({"vector": [[float("nan")] * 6] * 3}, "not finite"),
        ({"vector": [[1.0, 0, 0, 0, 0, 0], None, None]}, "rows without a vector"),
        ({"modality": ["smell"] * 3}, "modality 'smell'"),
        ({"root": ["photos"] * 3}, "absolute folder"),
        ({"path": ["../../etc/x.jpg"] * 3}, "absolute folder"),
        ({"path": ["a", "", "b"]}, "a path is needed"),
        ({"hash": ["zz"] * 3}, "not hexadecimal"),
    ],
)
def test_values_that_do_not_fit(filled: LocalStore, tmp_path: Path, columns: dict, message: str) -> None:
    export_parquet(filled, tmp_path / "out")
    store = MemoryStore(SPEC)
    with pytest.raises((UsageError, VectorError), match=message):
        import_parquet(store, rewritten(tmp_path / "out", **columns))
    assert store.count() == 0


def test_another_encoder_or_a_newer_schema(filled: LocalStore, tmp_path: Path) -> None:
    export_parquet(filled, tmp_path / "out")
    with pytest.raises(EncoderMismatch, match="into an index of their own"):
        import_parquet(MemoryStore(replace(SPEC, digest="d" * 64)), tmp_path / "out")
    [path] = parquet_files(tmp_path / "out")
    table = pq.read_table(path)
    said = table.schema.metadata[b"mmsearch"].replace(b'"schema": 1', b'"schema": 99')
    pq.write_table(table.replace_schema_metadata({b"mmsearch": said}), path)
    with pytest.raises(UsageError, match="schema 99"):
        import_parquet(MemoryStore(SPEC), tmp_path / "out")
    with pytest.raises(UsageError, match=r"no \.parquet files"):
        import_parquet(MemoryStore(SPEC), tmp_path / "index")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_refused_or_read(filled: LocalStore, tmp_path: Path, data: st.DataObject) -> None:
    """Cut, or with some bytes changed: an error that mmsearch raises on purpose, or no difference that it could see."""
    if not (tmp_path / "out").exists():
        export_parquet(filled, tmp_path / "out")
    content = bytearray((tmp_path / "out" / "part-00000.parquet").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] ^= data.draw(st.integers(1, 255))
    (tmp_path / "damaged.parquet").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    store = MemoryStore(SPEC)
    with contextlib.suppress(MmsearchError):
        import_parquet(store, tmp_path / "damaged.parquet")


def test_documents_and_vectors_of_an_index(index: Index, photos: Path) -> None:
    index.add([photos])
    everything = list(index.documents())
    assert {one.path for one in everything} == {str(path) for path in photos.rglob("*") if path.is_file()}
    ids, vectors = index.vectors()
    assert vectors.shape == (len(ids), index.encoder_spec.dim) and len({*ids.tolist()}) == len(ids)
    assert {segment.id for one in everything for segment in one.segments} == {*ids.tolist()}
    images, _ = index.vectors("type:image")
    assert {*images.tolist()} == {s.id for one in everything if one.modality == "image" for s in one.segments}
    with pytest.raises(UsageError, match="only filters"):
        index.vectors("lake type:image")


def test_what_lies_beside_files_and_what_is_said_in_them_goes_along(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "library"
    for name in ("one.png", "copy.png", "plain.png"):
        save_colour(folder / name, "red")
    for name, year in (("one", "2011"), ("copy", "2012")):
        (folder / f"{name}.png.json").write_text(
            f'{{"photoTakenTime": {{"timestamp": "{(int(year) - 1970) * 31_557_600 + 9_000_000}"}}, '
            '"geoData": {"latitude": 46.5, "longitude": 7.9}}'
        )
    save_video(folder / "film.mp4", ["blue"], 2.0)
    (folder / "film.srt").write_text(srt([(0, 1, "the zanzibarella swims")]))
    index.add(folder)
    index.export_parquet(tmp_path / "out")
    with Index.open(tmp_path / "other", create=True, encoder=ColourEncoder()) as other:
        other.import_parquet(tmp_path / "out")
        other.import_parquet(tmp_path / "out")
        for query in ("after:2011 before:2012", "near:46.5,7.9,5km", '"zanzibarella"', "said:zanzibarella", "blue",
                      "type:speech", "type:video", "path:plain.png before:2013"):  # fmt: skip
            expected = [(hit.path, hit.start_s, hit.text) for hit in index.search(query)]
            assert [(hit.path, hit.start_s, hit.text) for hit in other.search(query)] == expected, query
            assert bool(expected) == (query != "path:plain.png before:2013")
        assert other.verify().clean
