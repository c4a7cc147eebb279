"""The bytes of files, and the hash by which they are known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from mmsearch.core.errors import MediaError
from mmsearch.core.regular import open_regular
from mmsearch.sources.base import ARCHIVE_SUFFIX, FileEntry, reason_of
from mmsearch.sources.remote import fetched, is_remote, located


def content_hash(path: Path, expected: FileEntry, stopped: Callable[[], bool] = lambda: False) -> bytes:
    """BLAKE2b (160 bits) of all bytes of a file. Never reads past the size that was seen: what grows is read later.

    Raises:
        MediaError: the file cannot be read, or changed since ``expected`` was seen.
    """
    if is_remote(path):
        with fetched(path, expected, ()) as copy:
            return content_hash(copy, expected, stopped)
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
    """The bytes of a sample inside an archive, ``…/00000.tar/000000012.jpg``, or of an object in a store,
    ``s3://bucket/a.jpg``; ``None`` if there is no such archive, sample or object. Of an archive, reads the headers of
    all that lies before the sample.
    """
    import tarfile

    path = located(path)
    try:
        if is_remote(path) and path.is_file():
            with path.open("rb") as stream:
                return stream.read()
        archive = next((one for one in path.parents if one.suffix == ARCHIVE_SUFFIX and one.is_file()), None)
        if archive is None:
            return None
        name = path.relative_to(archive).as_posix()
        with archive.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
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
