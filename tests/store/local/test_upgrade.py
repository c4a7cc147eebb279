"""An index that an older mmsearch made is brought up to date when it is opened, and loses nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import IndexBusy
from mmsearch.store.local import migrations
from mmsearch.store.local.catalogue import row_owners
from mmsearch.store.local.directory import IndexDirectory
from tests.support.colours import COLOURS, ColourEncoder


@pytest.fixture
def old(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index as the first schema had it, written with that schema's own statements."""
    place, encoder = tmp_path / "old", ColourEncoder()
    files = sorted(path for path in photos.rglob("*.png"))
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "STEPS", migrations.STEPS[:1])
        IndexDirectory.create(place, "colours", encoder.spec)
        with IndexDirectory.open(place).writing(cut=False) as index:
            sql, space = index.catalogue.sql, index.space()
            index.vector_file(space).append(encoder.encode_texts([file.stem for file in files]), at=0)
            with index.catalogue.transaction():
                sql.execute("UPDATE spaces SET row_count = ?", [len(files)])
                root = index.catalogue.add_root(str(photos), is_relative=False)
                for number, file in enumerate(files, start=1):
                    status, path = file.stat(), file.relative_to(photos).as_posix()
                    sql.execute("INSERT INTO contents (id, hash, decoding, modality) VALUES (?, ?, 'old', 'image')",
                                [number, bytes([number])])  # fmt: skip
                    sql.execute("INSERT INTO segments (id, content_id, ordinal) VALUES (?, ?, 0)", [number, number])
                    sql.execute("INSERT INTO vectors VALUES (?, ?, ?, 'image')", [space.id, number - 1, number])
                    sql.execute("INSERT INTO documents (root_id, path, modality, size, mtime_ns, content_id) "
                                "VALUES (?, ?, 'image', ?, ?, ?)",
                                [root.id, path, status.st_size, status.st_mtime_ns, number])  # fmt: skip
    return place


def test_an_old_index_is_searched_and_kept_up_to_date(old: Path, photos: Path) -> None:
    with Index.open(old, encoder=ColourEncoder()) as index:
        for colour in COLOURS:
            assert Path(index.search(colour, k=1)[0].path).stem == colour
        assert {one.kind for one in index.verify().differences} == {"changed file"}, "read differently then"
        assert index.add(photos).updated == 8
        assert index.verify().clean


def test_whose_its_rows_are_is_written_down(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_owners, "BLOCK", 3)
    catalogue = IndexDirectory.open(old).catalogue
    assert catalogue.sql.execute("SELECT first_row FROM row_blocks ORDER BY 1").fetchall() == [(0,), (3,)]
    assert catalogue.row_owners(1, 8, np.zeros(0, np.int64)).contents.tolist() == list(range(1, 9))


def test_it_is_brought_up_to_date_once(old: Path) -> None:
    assert IndexDirectory.open(old).catalogue.sql.execute("PRAGMA user_version").fetchone() == (len(migrations.STEPS),)
    with IndexDirectory.open(old).writing():
        IndexDirectory.open(old).close()  # nothing left to write


def test_somebody_else_may_be_writing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "STEPS", migrations.STEPS[:1])
        directory = IndexDirectory.open(old)
        with directory.writing(cut=False):
            patch.undo()
            with pytest.raises(IndexBusy):
                IndexDirectory.open(old)
