"""Files of the index as one zip, which is sent while it is made."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from mmsearch.sources import read_sample

_PART = 1 << 20
LEFT_OUT = "not there any more.txt"


class _Pipe(io.RawIOBase):
    """What `zipfile` writes to, and is read from in between; it cannot be gone back in."""

    def __init__(self) -> None:
        super().__init__()
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self._data += part
        return len(part)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data


def zipped(paths: Sequence[str]) -> Iterator[bytes]:
    """A zip of files by their names, as they are (most are compressed already), in parts.

    Equal names get a number. What cannot be read is named in `LEFT_OUT`.
    """
    pipe, used, missing = _Pipe(), {LEFT_OUT.casefold()}, []
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for path in dict.fromkeys(paths):
            try:
                with _opened(path) as file, archive.open(_free_name(path, used), "w", force_zip64=True) as entry:
                    while part := file.read(_PART):
                        entry.write(part)
                        yield pipe.take()
            except OSError as error:
                missing.append(f"{path}: {error.strerror or error}")
        if missing:
            archive.writestr(LEFT_OUT, "".join(f"{line}\n" for line in missing))
    yield pipe.take()


def _opened(path: str) -> IO[bytes]:
    """A file, or a member of an archive."""
    if Path(path).is_file():
        return Path(path).open("rb")
    data = read_sample(Path(path))
    if data is None:
        raise FileNotFoundError(2, "it is not there any more")
    return io.BytesIO(data)


def _free_name(path: str, used: set[str]) -> str:
    name = PurePosixPath(path)
    number, free = 1, name.name
    while free.casefold() in used:  # also for disks that do not tell cases apart
        number += 1
        free = f"{name.stem} ({number}){name.suffix}"
    used.add(free.casefold())
    return free
