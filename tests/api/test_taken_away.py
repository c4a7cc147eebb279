"""An index that is removed or replaced while it is open, damaged files to import, a lack of memory: errors of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import IndexMissing, MmsearchError, ResourceShortage, UsageError
from mmsearch.core.shortage import errors_said, is_of_machine, sentence_of, shortage_of
from tests.support.colours import ColourEncoder, save_colour


def made(place: Path, photos: Path) -> Index:
    index = Index.open(place, create=True, encoder=ColourEncoder())
    index.add(photos)
    return index


def test_an_index_that_was_removed(tmp_path: Path, photos: Path) -> None:
    with made(tmp_path / "index", photos) as index:
        assert index.search("red")
        shutil.rmtree(tmp_path / "index")
        for use in (lambda: index.search("red"), index.status, lambda: index.add(photos), index.verify):
            with pytest.raises(IndexMissing, match="removed"):
                use()


def test_an_index_that_was_replaced(tmp_path: Path, photos: Path) -> None:
    """The old one would be answered from for as long as the program lives."""
    save_colour(tmp_path / "other" / "white.png", "white")
    made(tmp_path / "second", tmp_path / "other").close()
    with made(tmp_path / "index", photos) as index:
        assert index.search("red")
        (tmp_path / "index").rename(tmp_path / "old")
        (tmp_path / "second").rename(tmp_path / "index")
        with pytest.raises(IndexMissing, match="replaced"):
            index.search("red")
    with Index.open(tmp_path / "index", encoder=ColourEncoder()) as again:
        assert len(again.search("red")) == 1


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"x" * 200])
def test_damaged_files_to_import(tmp_path: Path, photos: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    folder = tmp_path / "laion"
    for name in ("img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
    with made(tmp_path / "index", photos) as index:
        for _ in range(2):
            with pytest.raises(MmsearchError, match="cannot be read"):
                index.import_folder(folder)
            np.save(folder / "img_emb/img_emb_0.npy", np.eye(4, dtype=np.float32))  # then it is the table's turn
        assert index.verify().clean


def test_what_libraries_say_of_memory_is_a_shortage() -> None:
    class RuntimeException(Exception):
        pass

    for error in (
        MemoryError(),
        RuntimeException("Failed to allocate memory for requested buffer of size 12"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
    ):
        assert shortage_of(error) == "there is not enough memory"
        with pytest.raises(ResourceShortage, match="memory"), errors_said(None):
            raise error
    assert shortage_of(ValueError("bad shape")) is None
    assert sentence_of(ValueError("bad shape")) is None
    assert not is_of_machine("the disk is full of cats")


def test_errors_of_ours_and_faults_pass(tmp_path: Path) -> None:
    for error in (UsageError("no"), ValueError("a fault"), BrokenPipeError()):
        with pytest.raises(type(error)), errors_said(tmp_path):
            raise error
