"""The bytes of files, and the hash by which they are known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from mmsearch.core.errors import MediaError
from mmsearch.core.regular import open_regular
from mmsearch.sources.base import ARCHIVE_SUFFIX, FileEntry, reason_of


def content_hash(path: Path, expected: FileEntry, stopped: Callable[[], bool] = lambda: False) -> bytes:
    """BLAKE2b (160 bits) of all bytes of a file. Never reads past the size that was seen: what grows is read later.

    Raises:
        MediaError: the file cannot be read, or changed since ``expected`` was seen.
    """
    digest, left = _new_hash(), expected.size
    try:
        with open_regular(path) as file:
            while left > 0 and not stopped() and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
            status = os.fstat(file.fileno())
    except OSError as error:
        raise MediaError(reason_of(error)) from error
    _check_unchanged(status, expected)
    return digest.digest()


def read_whole(path: Path, expected: FileEntry) -> tuple[bytes, bytes]:
    """All bytes of a small file, read once, and their `content_hash`.

    Raises:
        MediaError: the file cannot be read, or changed since ``expected`` was seen.
    """
    try:
        with open_regular(path) as file:
            data = b""
            while len(data) < expected.size and (block := file.read(expected.size - len(data))):
                data += block
            status = os.fstat(file.fileno())
    except OSError as error:
        raise MediaError(reason_of(error)) from error
    _check_unchanged(status, expected)
    return data, hash_of(data)


def read_sample(path: Path) -> bytes | None:
    """The bytes of a sample inside an archive, ``…/00000.tar/000000012.jpg``; ``None`` if there is no such archive or
    sample. Reads the headers of all that lies before it.
    """
    import tarfile

    archive = next((one for one in path.parents if one.suffix == ARCHIVE_SUFFIX and one.is_file()), None)
    if archive is None:
        return None
    name = path.relative_to(archive).as_posix()
    try:
        with tarfile.open(archive, "r:") as tar:
            found = next((member for member in tar if member.name == name and member.isfile()), None)
            reader = tar.extractfile(found) if found is not None else None
            return reader.read() if reader is not None else None
    except (tarfile.TarError, OSError, EOFError, UnicodeError):
        return None


def hash_of(data: bytes) -> bytes:
    """The `content_hash` of a file with these bytes."""
    digest = _new_hash()
    digest.update(data)
    return digest.digest()


def _new_hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=20)


def _check_unchanged(status: os.stat_result, expected: FileEntry) -> None:
    if (status.st_size, status.st_mtime_ns) != (expected.size, expected.mtime_ns):
        raise MediaError("it changed while it was being read: it will be read at the next run")
