"""A copy that is made while somebody writes is an index as of one moment."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import IndexDamaged, UsageError
from mmsearch.store.local.optimize import compact
from tests.support.colours import ColourEncoder, save_colour


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as opened:
        yield opened


def add(index: Index, number: int, name: str) -> None:
    vectors = np.eye(4, dtype=np.float32)[np.arange(number) % 4]
    rows = [{"path": f"{name}/{row}.png", "modality": "image"} for row in range(number)]
    index.add_embeddings(vectors, rows, dataset=name)


def test_a_copy_gives_the_same(index: Index, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate(["red", "green", "blue"]):
        save_colour(tmp_path / "photos" / f"{colour}.png", colour, seed=number)
    index.add(tmp_path / "photos")
    report = index.backup(tmp_path / "copy")
    assert (report.documents, report.vectors) == (3, 3)
    with Index.open(tmp_path / "copy", encoder=ColourEncoder()) as copy:
        assert copy.verify().clean
        assert [hit.path for hit in copy.search("red", k=3)] == [hit.path for hit in index.search("red", k=3)]


@pytest.mark.slow
def test_while_a_writer_runs(index: Index, tmp_path: Path) -> None:
    """Every copy holds whole commits, the earlier ones fewer, also across compactions."""
    stop, failures = threading.Event(), []

    def write() -> None:
        try:
            number = 0
            while not stop.is_set():
                add(index, 500, f"batch{number}")
                number += 1
                if number % 3 == 0:
                    index.remove(f"dataset:batch{number - 2}")
                    with index._directory.writing() as writable:
                        compact(writable)
        except BaseException as error:
            failures.append(error)

    add(index, 300, "first")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(8):
            report = index.backup(tmp_path / f"copy{number}")
            assert report.documents % 500 == 300
            with Index.open(tmp_path / f"copy{number}", encoder=ColourEncoder()) as copy:
                assert copy.verify().clean
                assert len(list(copy.search("red", k=5))) == 5
    finally:
        stop.set()
        writer.join()
    assert not failures
    assert index.verify().clean


def test_a_damaged_index_makes_no_copy(index: Index, tmp_path: Path) -> None:
    add(index, 50, "some")
    path = next(index.path.glob("vectors-*.f16"))
    data = bytearray(path.read_bytes())
    data[77] ^= 4
    path.write_bytes(data)
    with pytest.raises(IndexDamaged, match="mmsearch verify"):
        index.backup(tmp_path / "copy")
    assert not (tmp_path / "copy" / "manifest.json").exists()


def test_only_to_a_free_place(index: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty"):
        index.backup(index.path)


def test_an_older_log_beside_a_newer_catalogue_is_not_believed(index: Index, tmp_path: Path) -> None:
    """A backup made file by file: the log is of an earlier state."""
    add(index, 50, "first")
    with index._directory.writing() as writable:
        writable.catalogue.sql.execute("PRAGMA wal_autocheckpoint = 0")
        with writable.catalogue.transaction():
            writable.catalogue.sql.execute("UPDATE documents SET caption = 'old'")
        shutil.copy(index.path / "catalogue.sqlite-wal", tmp_path / "older-log")
    add(index, 70, "second")
    with index._directory.writing() as writable, writable.catalogue.transaction():
        writable.catalogue.sql.execute("UPDATE documents SET caption = 'new'")
    place = index.path
    index.close()
    log = place / "catalogue.sqlite-wal"
    assert not log.exists() or log.stat().st_size == 0
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    (copy / "catalogue.sqlite-shm").unlink(missing_ok=True)
    shutil.copy(tmp_path / "older-log", copy / "catalogue.sqlite-wal")
    with Index.open(copy, encoder=ColourEncoder()) as opened:
        assert opened.status()["documents"]["image"] == 120
        captions = opened._directory.catalogue.sql.execute("SELECT DISTINCT caption FROM documents").fetchall()
        assert captions == [("new",)]
        assert [one.kind for one in opened.verify().differences] == ["foreign log"]
