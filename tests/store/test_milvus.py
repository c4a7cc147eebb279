"""The contract on milvus-lite, and on a real Milvus 2.3.5 server (slow)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import IndexMissing, UsageError
from mmsearch.query.calibrate.calibration import refresh_calibration, segments_without_calibration
from mmsearch.store.base import Columns, NewDocument, NewSegment, Store
from mmsearch.store.registry import family_of, open_store
from tests.store.contract import FILTERS, SPEC, Contract, documents, queries
from tests.support.colours import COLOURS, ColourEncoder

pytest.importorskip("pymilvus", reason="pymilvus is not installed")


class Milvus(Contract):
    """One store for all tests, emptied before each: to make a collection takes a server seconds."""

    @pytest.fixture(scope="class")
    def address(self) -> Any:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def made(self, address: str) -> Iterator[Store]:
        store = family_of(address).create(address, SPEC.name, SPEC)
        yield store
        store.close()

    @pytest.fixture
    def store(self, made: Store) -> Store:
        made.delete(None)
        return made

    def test_another_object_reads_what_was_written(self, filled: Any, address: str) -> None:
        store, _ = filled
        if store.address.is_file:
            pytest.skip("milvus-lite: a file is open once at a time")
        other = open_store(address)
        before = other.version
        assert other.count() == 200 and other.version == store.version and other.spec == SPEC
        assert store.delete(None) == 200
        assert other.version == before
        other.refresh()
        assert other.version == store.version != before and other.count() == 0
        other.close()

    def test_there_is_one_index_at_an_address(self, made: Store, address: str) -> None:
        if made.address.is_file:  # type: ignore[attr-defined]
            pytest.skip("milvus-lite: a file is open once at a time")
        with pytest.raises(UsageError, match="already"):
            family_of(address).create(address, SPEC.name, SPEC)


class TestMilvusLite(Milvus):
    @pytest.fixture(scope="class")
    def address(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
        return f"milvus:{tmp_path_factory.mktemp('lite')}/store.db"


class TestMilvusLiteByRuns(Milvus):
    """As on a server that cannot look inside of texts."""

    @pytest.fixture(scope="class")
    def address(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mmsearch.store.milvus.store._has_infix", lambda *_: False)
            yield f"milvus:{tmp_path_factory.mktemp('runs')}/store.db"


@pytest.mark.slow
class TestMilvusServer(Milvus):
    @pytest.fixture(scope="class")
    def address(self, milvus_server: str) -> str:
        return f"{milvus_server}/contract?index=flat"


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("milvus://user:secret@host/photos", "MMSEARCH_MILVUS_PASSWORD"),
        ("milvus://host/a-b", "no name of a collection"),
        ("milvus:photos", "milvus:PATH.db"),
        ("milvus://host:1/photos?what=1", "unknown options"),
        ("milvus://host:1/photos?index=ivf", "flat, hnsw"),
    ],
)
def test_what_is_no_address_is_refused(address: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        open_store(address)


def test_a_file_is_opened_again(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    address, (made, vectors) = f"milvus:{tmp_path}/store.db", documents(40)
    store = family_of(address).create(address, SPEC.name, SPEC)
    store.upsert(made, vectors)
    store.close()
    assert family_of(address).exists(address)
    store = open_store(address)
    assert store.count() == 40 and store.spec == SPEC
    assert len(store.search(queries(1), 5)[0]) >= 5 and store.find("/photos/a/3.jpg") is not None
    store.close()


def test_lists_are_whole_whatever_was_sealed_between(tmp_path: Path) -> None:
    """A file has several segments then, and gives rows in their order unless it is told otherwise."""
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    address, (made, vectors) = f"milvus:{tmp_path}/store.db", documents(60)
    store = family_of(address).create(address, SPEC.name, SPEC)
    start = 0
    for first in range(0, 60, 20):
        part = made[first : first + 20]
        count = sum(len(one.segments) for one in part)
        store.upsert(part, vectors[start : start + count])
        store._server.flush(store.collection)
        start += count
    every = store._server.query(store.collection, "id >= 0", ["id"])
    for size in (1, 7, 1000):
        pages = [[one["id"] for one in page] for page in store._server.pages(store.collection, "id >= 0", ["id"], size)]
        assert [id_ for page in pages for id_ in page] == sorted(one["id"] for one in every), size
    assert len({one.path for one in store.scan()}) == 60
    store.close()


def test_calibration_writes_only_rows_in_which_something_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    monkeypatch.setattr("mmsearch.store.milvus.store.WRITTEN", 7)
    address, (made, vectors) = f"milvus:{tmp_path}/store.db", documents(30)
    store = family_of(address).create(address, SPEC.name, SPEC)
    store.upsert(made, vectors)
    written: list[int] = []
    upsert = type(store._server).upsert
    monkeypatch.setattr(
        type(store._server), "upsert",
        lambda server, name, rows: written.append(len(rows) if name == store.collection else 0)
        or upsert(server, name, rows),
    )  # fmt: skip
    hubness = np.linspace(0.1, 0.9, store.size).astype(np.float32)
    is_text = np.arange(store.size) % 2 == 0

    def rows_written() -> int:
        written.clear()
        store.keep_calibration({"x": np.arange(3)}, Columns(hubness, is_text), 0)
        assert max(written) <= 7
        found = store.columns(np.concatenate([block.ids for block in store.blocks()]))
        assert np.allclose(found.hubness, hubness, atol=1e-6) and (found.is_text == is_text).all()
        return sum(written)

    before = {block.ids.tobytes(): block.vectors for block in store.blocks()}
    assert rows_written() == store._count("")
    hubness += np.float32(1e-7)
    assert rows_written() == 0
    hubness[3] += 0.1
    is_text[8] = ~is_text[8]
    assert 2 <= rows_written() < 10, "equal files have a row each"
    assert all((before[block.ids.tobytes()] == block.vectors).all() for block in store.blocks())
    store.close()


def test_a_tenant_sees_nothing_of_another(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    address, (made, vectors) = f"milvus:{tmp_path}/store.db", documents(30)
    one = family_of(address).create(f"{address}?tenant=one", SPEC.name, SPEC)
    one.upsert(made, vectors)
    one.keep_calibration({"x": np.arange(3)}, Columns(np.ones(5, np.float32), np.zeros(5, bool)), 0)
    ids = one.search(queries(1), 9)[0].ids
    one.close()
    two = open_store(f"{address}?tenant=two")
    assert two.count() == 0 and two.size == 0 and two.modalities == frozenset() and [*two.scan()] == []
    assert len(two.search(queries(1), 9)[0]) == 0 and two.fetch(ids.tolist()) == [] and two.calibration() == ({}, 0)
    assert two.find("/photos/a/3.jpg") is None and two.words([["lake"]], 9)[0].count == 0
    assert two.delete(None) == 0 and [*two.files("/photos")] == []
    for where in FILTERS.values():
        assert two.count(where) == 0 and two.newest(where, 9) == []
    two.upsert(made[:3], vectors[: sum(len(one.segments) for one in made[:3])])
    assert two.count() == 3 and two.delete(None) == 3
    with pytest.raises(UsageError, match="tenant"):
        two.switch(SPEC, SPEC.name)
    two.close()
    everything = open_store(address)
    assert everything.count() == 30
    everything.close()


def test_calibration_that_has_come_since_the_size_was_asked(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    encoder, address = ColourEncoder(), f"milvus:{tmp_path}/store.db"
    made = [NewDocument(f"{number}.jpg", "image", bytes([number]), [NewSegment()], "/photos") for number in range(4)]
    vectors = encoder.encode_texts(["red", "green", "blue", "yellow"])
    store = family_of(address).create(address, encoder.spec.name, encoder.spec)
    store.upsert(made[:2], vectors[:2])
    assert refresh_calibration(store, encoder).covered == 2
    store.upsert(made[2:3], vectors[2:3])
    reader = store.reader()
    assert reader.metadata["segments"] == 3
    store.upsert(made[3:], vectors[3:])
    assert refresh_calibration(store, encoder).covered == 4
    assert refresh_calibration(reader, encoder).covered == 4
    assert segments_without_calibration(reader) == 0
    reader.close()
    store.close()


def test_what_a_reader_writes_counts_for_whom_it_was_made_of(tmp_path: Path) -> None:
    """Commands write through readers; whether calibration is worth while is asked of the other one then."""
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    address, (made, vectors) = f"milvus:{tmp_path}/store.db", documents(20)
    store = family_of(address).create(address, SPEC.name, SPEC)
    assert (store.count(), store.size) == (0, 0)
    reader = store.reader()
    reader.upsert(made, vectors)
    assert (store.count(), store.size) == (20, len(vectors)) == (reader.count(), reader.size)
    reader.close()
    store.close()


def test_where_nothing_is_there_is_no_index(tmp_path: Path) -> None:
    address = f"milvus:{tmp_path}/none.db"
    assert not family_of(address).exists(address)
    with pytest.raises(IndexMissing):
        open_store(address)
    assert not list(tmp_path.iterdir())


def test_a_query_in_words_takes_four_requests(tmp_path: Path) -> None:
    """The version, the vectors, the words, parts of names: what the first three have brought is not asked for again."""
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    encoder = ColourEncoder()
    names = list(COLOURS)
    made = [
        NewDocument(f"{names[number % 8]}/{number}.jpg", "image", number.to_bytes(2, "big"), [NewSegment()], "/photos")
        for number in range(400)
    ]
    vectors = np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Index.open(f"milvus:{tmp_path}/store.db", create=True, encoder=encoder) as index:
        store = index._session.store()
        store.upsert(made, vectors)
        found = index.search("red harbour", k=5)  # samples and calibration are read once
        before = store.round_trips  # type: ignore[attr-defined]
        assert index.search("red harbour", k=5) == found and len(found) == 5
        assert store.round_trips - before <= 4  # type: ignore[attr-defined]
        store.close()
