"""One batch, one commit: all of it or nothing, at whatever point it fails; and files without what is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.core.errors import VectorError
from mmsearch.core.types import EncoderSpec, MediaInfo
from mmsearch.models.rerankers.base import RerankerSpec
from mmsearch.store.local.catalogue import Catalogue
from mmsearch.store.local.catalogue.reranker_cache import live_places, token_table
from mmsearch.store.local.commit import (
    Batch,
    ContentText,
    EncodedContent,
    PlacedDocument,
    ReadArchive,
    SkippedFile,
    _next_generation,
    commit,
    compact,
)
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.files.tokens import TokenFile
from mmsearch.store.local.files.vectors import VectorFile
from mmsearch.store.local.reranker_cache import claim

DIM = 4
SPEC = EncoderSpec("axes", "ab" * 32, DIM, "none")
OTHER = EncoderSpec("other axes", "cd" * 32, DIM, "none")
RERANKER = RerankerSpec("reader", "ef" * 32, (2, 3))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[IndexDirectory]:
    """Open for writing, with a root, a reranker cache, and a second encoder."""
    IndexDirectory.create(tmp_path / "index", "axes", SPEC)
    opened = IndexDirectory.open(tmp_path / "index")
    with opened.writing() as writable:
        claim(writable, "builtin", RERANKER)
        with writable.catalogue.transaction():
            writable.catalogue.add_root("/photos", is_relative=False)
            writable.catalogue.add_space(OTHER, "vectors-cdcdcdcdcdcd.f16")
        yield writable
    opened.close()


def content(name: str, segments: int = 1, axis: int = 0) -> EncodedContent:
    vectors = np.zeros((segments, DIM), np.float32)
    vectors[:, axis] = 1
    tokens = np.full((segments, 2, 3), axis + 1, np.float16)
    spans = [(float(n), n + 1.0, None) for n in range(segments)] if segments > 1 else [(None, None, None)]
    return EncodedContent((name.encode(), "image/1"), "image", MediaInfo(), spans, vectors, list(tokens))


def document(path: str, of: int | str, **more: Any) -> PlacedDocument:
    key = of if isinstance(of, int) else (of.encode(), "image/1")
    return PlacedDocument(1, path, "image", 10, 20, key, **more)


def full(index: IndexDirectory) -> Batch:
    """One batch with something of everything, for the space that answers."""
    return Batch(
        index.space().id,
        contents=[content("a"), content("b", segments=3, axis=1)],
        documents=[document("a.png", "a"), document("copy.png", "a"), document("b.gif", "b"), document("old.png", 1)],
        removed_below=[(1, "gone")],
        removed=[(1, 1, "first.png")],
        skipped=[SkippedFile(1, "bad.png", 1, 2, 3, "image/1", "broken")],
        archives=[ReadArchive(1, "0.tar", 5, 6, "tar/1", frozenset({"0.tar/in.png"}))],
        tokens=[(1, np.full((2, 3), 7, np.float16))],
        texts=[ContentText(1, "reader", {1: ["EXIT"]})],
    )


def first(index: IndexDirectory) -> None:
    documents = [document(path, "first") for path in ("first.png", "gone/x.png", "0.tar/in.png", "0.tar/out.png")]
    commit(index, Batch(index.space().id, contents=[content("first", axis=3)], documents=documents))


def state(index: IndexDirectory) -> list[Any]:
    """All that is committed."""
    sql = index.catalogue.sql
    tables = ("documents", "contents", "segments", "vectors", "skipped", "archives", "tokens", "token_files",
              "readings", "spaces", "dead_rows", "left_out")  # fmt: skip
    return [sql.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]


def paths(index: IndexDirectory) -> set[str]:
    return {known.path for known in index.catalogue.documents_below(1)}


def test_a_batch_comes_true_as_a_whole(index: IndexDirectory) -> None:
    first(index)
    done = commit(index, full(index))
    assert done.contents == [2, 2, 3, 1] and (done.vectors, done.removed) == (4, 1)
    assert paths(index) == {"a.png", "copy.png", "b.gif", "old.png", "0.tar/in.png"}
    space = index.space()
    expected = np.eye(DIM)[[3, 0, 1, 1, 1]]
    assert np.array_equal(index.matrix(space), expected)
    table = token_table(index.catalogue)
    assert table is not None and table.row_count == 6
    rows = TokenFile(index.path / table.file, table.shape).read(range(6), 6)
    assert [row.max() for row in rows.round(2)] == [4, 1, 2, 2, 2, 7]
    assert len(live_places(index.catalogue, table)) == 5, "the first segment has its second tokens"
    assert index.catalogue.skipped_below(1)["bad.png"][-1] == "broken"
    assert index.catalogue.archives_below(1) == {"0.tar": (5, 6, "tar/1")}
    assert index.catalogue.sql.execute("SELECT text FROM segment_readings").fetchall() == [("EXIT",)]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (VectorFile, "append"), (TokenFile, "append"), (Catalogue, "add_content"), (Catalogue, "set_row_count"),
        (Catalogue, "put_document"), (Catalogue, "remove_below"), (Catalogue, "put_archive"),
        (Catalogue, "put_skipped"),
    ],
)  # fmt: skip
def test_a_commit_that_fails_leaves_nothing(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    first(index)
    before, method = state(index), getattr(owner, name)

    def failing(*arguments: Any, **named: Any) -> None:
        method(*arguments, **named)
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing)
        with pytest.raises(OSError, match="no space left"):
            commit(index, full(index))
    assert state(index) == before
    assert commit(index, full(index)).vectors == 4
    assert index.vector_file(index.space()).rows_on_disk() == index.space().row_count == 5


def test_vectors_and_tokens_that_are_none_are_refused_whole(index: IndexDirectory) -> None:
    before = state(index)
    bad = content("bad")
    bad.vectors[0, 0] = np.nan
    with pytest.raises(VectorError):
        commit(
            index, Batch(index.space().id, contents=[content("fine"), bad], documents=[document("fine.png", "fine")])
        )
    with pytest.raises(VectorError):
        commit(index, Batch(index.space().id, tokens=[(1, np.zeros((5, 5), np.float16))]))
    assert state(index) == before


def test_segments_get_vectors_of_a_second_encoder_once(index: IndexDirectory) -> None:
    first(index)
    second = index.catalogue.spaces()[1]
    vector = np.eye(DIM, dtype=np.float32)[2]
    batch = Batch(second.id, vectors=[(1, vector), (99, vector)], left_out=[(1, "a reason"), (99, "another")])
    assert commit(index, batch).vectors == 1, "one of the two segments is gone"
    assert commit(index, Batch(second.id, vectors=[(1, -vector)])).vectors == 0, "somebody was faster"
    second = index.catalogue.spaces()[1]
    assert second.row_count == 1 and np.array_equal(index.matrix(second)[0], vector)
    assert index.catalogue.sql.execute("SELECT content_id, reason FROM left_out").fetchall() == [(1, "a reason")]


def test_an_empty_batch_is_false_and_harms_nobody(index: IndexDirectory) -> None:
    before = state(index)
    assert not Batch(index.space().id) and full(index)
    assert commit(index, Batch(index.space().id)).contents == []
    assert state(index) == before


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_copied_rows_are_the_same_bytes(tmp_path_factory: pytest.TempPathFactory, alive: list[bool]) -> None:
    """The oracle is the matrix in memory; damaged rows are copied as they are, for `verify` to find."""
    folder = tmp_path_factory.mktemp("rows")
    old, chosen = VectorFile(folder / "old.f16", DIM), np.flatnonzero(alive)
    rows = np.random.default_rng(len(alive)).standard_normal((len(alive), DIM)).astype(np.float16)
    old.append(rows, at=0)
    stored = bytearray(old.path.read_bytes())
    stored[:2] = np.float16(np.nan).tobytes()
    old.path.write_bytes(bytes(stored))
    fresh = old.at(folder / "new.f16")
    old.copy_to(fresh, chosen, len(rows))
    expected = np.frombuffer(bytes(stored), "<f2").reshape(rows.shape)[chosen]
    assert fresh.path.read_bytes() == expected.tobytes()
    fresh.delete()
    assert not fresh.path.exists()


def test_compaction_gives_back_vectors_and_tokens(index: IndexDirectory) -> None:
    first(index)
    commit(index, full(index))
    with index.catalogue.transaction():
        index.catalogue.remove_below(1, "b.gif")
        index.catalogue.drop_unused_contents()
    names = {file.name for file in index.path.glob("*.[fi]*")}
    assert compact(index) == 3
    assert np.array_equal(index.matrix(index.space()), np.eye(DIM)[[3, 0]])
    table = token_table(index.catalogue)
    assert table is not None and table.row_count == 2
    assert [row.max() for row in TokenFile(index.path / table.file, table.shape).read([0, 1], 2)] == [1, 7]
    assert not names & {file.name for file in index.path.glob("*.[fi]*")}, "all of them have new names"
    assert compact(index) == 0


@pytest.mark.parametrize(
    ("name", "following"),
    [
        ("vectors-ab12.f16", "vectors-ab12-1.f16"),
        ("vectors-0123-9.f16", "vectors-0123-10.f16"),
        ("vectors-0123.f16", "vectors-0123-1.f16"),
        ("tokens-0123-1.i8", "tokens-0123-2.i8"),
        ("tokens-my-own-3.i8", "tokens-my-own-3-1.i8"),
    ],
)
def test_the_next_name(name: str, following: str) -> None:
    assert _next_generation(name) == following
