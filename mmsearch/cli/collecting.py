"""Copies of found files, or links to them, in one folder. The files themselves are only read."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmsearch.core.errors import UsageError
from mmsearch.core.shortage import sentence_of


@dataclass
class Collected:
    """``made``: what lies in the folder now; ``there``: what lay there already; ``missing``: paths with the reason."""

    made: list[Path] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


def collect(paths: Iterable[str], folder: Path, *, links: bool = False) -> Collected:
    """Copies each file into ``folder``, once, or (``links``) puts symbolic links to it there.

    Names that are taken get a number: ``lake.jpg``, ``lake (2).jpg``. Nothing that lies there is written over; a file
    that lies there with the same content, or the same link, is left. A member of an archive is copied out of it.

    Raises:
        UsageError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made: {sentence_of(error) or error.strerror}") from error
    collected = Collected()
    for path in dict.fromkeys(paths):
        try:
            place, is_new = _linked(Path(path), folder) if links else _copied(Path(path), folder)
        except FileNotFoundError:
            collected.missing.append((path, "is not there any more"))
        except OSError as error:
            collected.missing.append((path, sentence_of(error) or error.strerror or str(error)))
        else:
            (collected.made if is_new else collected.there).append(place)
    return collected


def _names(folder: Path, name: str) -> Iterator[Path]:
    """``lake.jpg``, ``lake (2).jpg`` …"""
    yield folder / name
    path = Path(name)
    for number in range(2, 1_000_000):
        yield folder / f"{path.stem} ({number}){path.suffix}"


def _linked(file: Path, folder: Path) -> tuple[Path, bool]:
    if not file.is_file():
        if _member(file) is None:
            raise FileNotFoundError(str(file))
        raise OSError(None, "lies in an archive: it can be copied, not linked")
    for place in _names(folder, file.name):
        if os.path.lexists(place):
            if place.is_symlink() and place.readlink() == file:
                return place, False
            continue
        place.symlink_to(file)
        return place, True
    raise OSError(None, "too many files of that name")


def _copied(file: Path, folder: Path) -> tuple[Path, bool]:
    data = None if file.is_file() else _member(file)
    if data is None and not file.is_file():
        raise FileNotFoundError(str(file))
    for place in _names(folder, file.name):
        try:
            with place.open("xb") as made:  # never what is there already
                if data is not None:
                    made.write(data)
                else:
                    with file.open("rb") as read:
                        shutil.copyfileobj(read, made, 1 << 20)
        except FileExistsError:
            if _is_same(place, file, data):
                return place, False
            continue
        except BaseException:
            with contextlib.suppress(OSError):
                place.unlink()  # no half of a file stays
            raise
        if data is None:
            with contextlib.suppress(OSError):
                shutil.copystat(file, place)
        return place, True
    raise OSError(None, "too many files of that name")


def _is_same(place: Path, file: Path, data: bytes | None) -> bool:
    if not place.is_file():
        return False
    if data is not None:
        return place.stat().st_size == len(data) and place.read_bytes() == data
    return filecmp.cmp(place, file, shallow=False)


def _member(path: Path) -> bytes | None:
    from mmsearch.sources import read_sample

    return read_sample(path)
