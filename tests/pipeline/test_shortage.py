"""What the machine lacks for a moment is not the file's fault: the file is tried again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch.api import Index
from mmsearch.core.errors import MediaError, ResourceShortage
from mmsearch.core.shortage import shortage_of
from mmsearch.media.image import reader as image_reader
from mmsearch.store.local.files.rows import RowFile
from tests.support.colours import COLOURS, ColourEncoder, save_colour


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate(COLOURS):
        save_colour(tmp_path / "photos" / f"{colour}.png", colour, seed=number)
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as opened:
        yield opened


SHORTAGES = [
    OSError(number, os.strerror(number))
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
] + [MemoryError()]


@pytest.mark.parametrize("error", SHORTAGES, ids=str)
def test_such_a_file_is_tried_again(
    index: Index, photos: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Also what was indexed before stays."""
    index.add(photos)
    for path in photos.iterdir():
        os.utime(path, (1, 1))
        path.write_bytes(path.read_bytes() + b"\0")

    def failing(*_: object, **__: object) -> object:
        raise MediaError("damaged PNG") from error

    monkeypatch.setattr(image_reader.ImageDecoder, "decode", failing)
    report = index.add(photos)
    assert len(report.skipped) == len(COLOURS)
    assert all("tried again" in skip.reason for skip in report.skipped)
    assert index.status()["documents"]["image"] == len(COLOURS), "what was indexed before stays"
    monkeypatch.undo()
    assert index.add(photos).updated == len(COLOURS)


def test_a_damaged_file_is_not(index: Index, photos: Path) -> None:
    (photos / "red.png").write_bytes((photos / "red.png").read_bytes()[:60])
    assert index.add(photos).skipped
    assert shortage_of(MediaError("damaged PNG")) is None
    assert shortage_of(PermissionError(errno.EACCES, "no")) is None


def test_a_library_that_finds_no_room_says_that_memory_is_short() -> None:
    words = "some.so: failed to map segment from shared object"
    assert shortage_of(ImportError(words)) == shortage_of(MemoryError()) is not None
    assert shortage_of(ImportError(f"{words}: Operation not permitted")) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_disk_is_one_sentence(index: Index, photos: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    save_colour(photos / "first.png", "red", seed=70)
    index.add(photos / "first.png")

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number), "vectors")

    monkeypatch.setattr(RowFile, "_write", full)
    with pytest.raises(ResourceShortage, match="What was complete is kept"):
        index.add(photos)
    monkeypatch.undo()
    assert index.status()["documents"]["image"] == 1
    assert index.add(photos).indexed == len(COLOURS)
    assert index.verify().clean


def test_the_log_is_empty_after_a_clean_end(index: Index, photos: Path) -> None:
    index.add(photos)
    log = index.path / "catalogue.sqlite-wal"
    assert not log.exists() or log.stat().st_size == 0
    assert (index.path / "catalogue.closed").exists()
