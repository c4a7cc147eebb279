"""The database: constraints that hold, paths that are not patterns, schema versions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import IndexDamaged, IndexTooNew
from mmsearch.core.types import EncoderSpec, MediaInfo
from mmsearch.store.local.catalogue import Catalogue, NewContent, NewSegment, Space

SPEC = EncoderSpec("test", "ab" * 32, 4, "none")


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    opened = Catalogue(tmp_path / "catalogue.sqlite", read_only=False)
    yield opened
    opened.close()


def fill(catalogue: Catalogue, paths: list[str], segments: int = 1) -> Space:
    space = catalogue.spaces()[0] if catalogue.spaces() else catalogue.add_space(SPEC, "vectors.f16")
    roots = catalogue.roots() or [catalogue.add_root("/photos", is_relative=False)]
    row = catalogue.row_count(space.id)
    for path in paths:
        rows = [NewSegment(row + number) for number in range(segments)]
        content = NewContent(path.encode(), "image/1", "image", MediaInfo(width=4), rows)
        content_id = catalogue.add_content(space, content)
        catalogue.put_document(roots[0].id, path, "image", 10, 20, content_id)
        row += segments
    catalogue.set_row_count(space.id, row)
    return space


def test_a_failed_transaction_leaves_nothing(catalogue: Catalogue) -> None:
    fill(catalogue, ["a.jpg"])
    with pytest.raises(RuntimeError), catalogue.transaction():
        fill(catalogue, ["b.jpg", "c.jpg"])
        raise RuntimeError
    assert [document.path for document in catalogue.documents_below(1)] == ["a.jpg"]
    assert catalogue.spaces()[0].row_count == 1


def test_one_row_belongs_to_one_segment(catalogue: Catalogue) -> None:
    space = fill(catalogue, ["a.jpg"])
    with pytest.raises(sqlite3.IntegrityError), catalogue.transaction():
        catalogue.add_content(space, NewContent(b"x", "image/1", "image", MediaInfo(), [NewSegment(0)]))
    assert catalogue.counts()["segments"] == 1


def test_removing_the_last_document_of_a_content_kills_its_rows(catalogue: Catalogue) -> None:
    space = fill(catalogue, ["a.jpg", "b.jpg"], segments=3)
    (first, _) = catalogue.documents_below(1)
    catalogue.put_document(1, "copy.jpg", "image", 10, 20, first.content_id)
    catalogue.remove_below(1, "a.jpg")
    catalogue.drop_unused_contents()
    assert catalogue.dead_rows(space.id).tolist() == []
    catalogue.remove_below(1, "copy.jpg")
    catalogue.drop_unused_contents()
    assert catalogue.dead_rows(space.id).tolist() == [0, 1, 2]
    assert {found.row for found in catalogue.find_rows(space.id, range(6))} == {3, 4, 5}


def test_segment_ids_are_never_used_again(catalogue: Catalogue) -> None:
    fill(catalogue, ["a.jpg"])
    catalogue.remove_below(1, "")
    catalogue.drop_unused_contents()
    fill(catalogue, ["b.jpg"])
    assert catalogue.sql.execute("SELECT id FROM segments").fetchall() == [(2,)]


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab_%/[*?é."), min_size=1, max_size=5), unique=True, max_size=10),
    st.text(st.sampled_from("ab_%/[*?é."), max_size=4),
)
def test_below_means_below(tmp_path_factory: pytest.TempPathFactory, paths: list[str], prefix: str) -> None:
    catalogue = Catalogue(tmp_path_factory.mktemp("db") / "c.sqlite", read_only=False)
    fill(catalogue, paths)
    found = [document.path for document in catalogue.documents_below(1, prefix)] if paths else []
    expected = [path for path in paths if not prefix or path == prefix or path.startswith(prefix + "/")]
    assert found == sorted(expected)
    catalogue.close()


def test_a_newer_schema_is_refused(catalogue: Catalogue) -> None:
    catalogue.sql.execute("PRAGMA user_version = 99")
    with pytest.raises(IndexTooNew, match="schema 99"):
        Catalogue(catalogue.path, read_only=True)


def test_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(IndexDamaged, match="cannot be opened"):
        Catalogue(tmp_path / "c.sqlite", read_only=True)


def test_thousands_of_rows_can_be_asked_for_at_once(catalogue: Catalogue) -> None:
    space = fill(catalogue, ["a.jpg"], segments=50)
    assert len(catalogue.find_rows(space.id, range(70_000))) == 50
