"""An index that an older mmsearch made is brought up to date when it is opened, and loses nothing."""

from __future__ import annotations

from pathlib import Path

import filelock
import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import IndexBusy
from mmsearch.store.local import migrations
from mmsearch.store.local.catalogue import row_owners
from mmsearch.store.local.directory import IndexDirectory
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.old_index import OldDocument, write_old_index


@pytest.fixture
def old(photos: Path, tmp_path: Path) -> Path:
    """An index as the first schema had it."""
    encoder = ColourEncoder()
    files = sorted(photos.rglob("*.png"))
    vectors = encoder.encode_texts([file.stem for file in files])
    documents = [
        OldDocument(file, row[None], bytes([number]))
        for number, (file, row) in enumerate(zip(files, vectors, strict=True))
    ]
    return write_old_index(tmp_path / "old", encoder.spec, photos, documents)


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


def test_somebody_else_may_be_writing(old: Path) -> None:
    with filelock.FileLock(old / "writer.lock"), pytest.raises(IndexBusy):
        IndexDirectory.open(old)
