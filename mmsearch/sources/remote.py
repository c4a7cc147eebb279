"""Folders that lie in an object store or behind a web server: ``s3://``, ``gs://``, ``az://``, ``http(s)://``.

fsspec speaks with them; credentials and endpoints come from the environment, as its drivers read them. A `RemotePath`
is a `pathlib.Path` that asks the store where others ask the system, so one walk, one plan and one catalogue serve both.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import random
import re
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import IO, Any, TypeVar, cast

from mmsearch.core.errors import MediaError, UsageError
from mmsearch.core.extras import install_hint
from mmsearch.sources.base import FileEntry, reason_of

T = TypeVar("T")
DRIVERS = {
    "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "http": "aiohttp", "https": "aiohttp", "local": "fsspec", "memory": "fsspec",
}  # fmt: skip
"""What speaks each protocol. ``local`` and ``memory`` are of use in tests: files read as if they were remote."""
ATTEMPTS = 3
"""Of every request, besides those that a driver makes itself."""
FIRST_DELAY_S = 0.5
"""Before the second attempt; doubled each time, and up to half of it more or less by chance."""
PAGE = 1000
"""Objects in a page of a listing: the most that S3 gives."""
NO_PATH = "its key has an empty part, or one of dots, so it can be no path: copy it to another key"
_URL = re.compile(rf"({'|'.join(DRIVERS)}):/+(.*)", re.DOTALL)
_NO_HOST = ("local", "memory")
_PASSING = {
    errno.EBUSY, errno.EAGAIN, errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED,
    errno.EPIPE, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH,
}  # fmt: skip


class RemotePath(PosixPath):
    """``s3://bucket/photos/a.jpg`` as a path. `stat`, `exists`, `is_file`, `is_dir` and `open` ask the store, and raise
    `OSError` as for files; what is not overwritten here finds nothing.
    """

    def __str__(self) -> str:
        scheme, *rest = self.parts or (".",)
        if not scheme.endswith(":"):
            return "/".join([scheme, *rest])  # what `relative_to` gave
        return scheme + ("///" if scheme[:-1] in _NO_HOST else "//") + "/".join(rest)

    def __fspath__(self) -> str:
        return str(self)

    def as_posix(self) -> str:
        """The address."""
        return str(self)

    @property
    def scheme(self) -> str:
        """``s3``, ``gs``, …"""
        return self.parts[0].rstrip(":")

    @property
    def key(self) -> str:
        """The name by which fsspec's driver knows it."""
        if self.scheme in _NO_HOST:
            return "/" + "/".join(self.parts[1:])
        return str(self) if self.scheme.startswith("http") else "/".join(self.parts[1:])

    def expanduser(self) -> RemotePath:
        """Itself: there is no home there."""
        return self

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        """Itself: there are no links there."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of an object; see `stamp`.

        Raises:
            FileNotFoundError: there is none.
            OSError: the store refuses, or does not answer.
        """
        found = _asked(self, lambda: filesystem(self.scheme).info(self.key))
        if found.get("type") == "directory":
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self))
        return _status_of(int(found.get("size") or 0), stamp(found))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is such an object, or one below."""
        return self.is_dir() or self.is_file()

    def is_file(self, **_: Any) -> bool:
        """Whether there is such an object."""
        try:
            return stat.S_ISREG(self.stat().st_mode)
        except FileNotFoundError:
            return False

    def is_dir(self, **_: Any) -> bool:
        """Whether there are objects below."""
        try:
            return next(scan(self), None) is not None
        except FileNotFoundError:
            return False

    def is_symlink(self) -> bool:
        """There are none."""
        return False

    def open(self, mode: str = "r", *_: Any, **__: Any) -> IO[Any]:  # type: ignore[override]
        """Opens an object for reading, in any order.

        Raises:
            OSError: it is not there, or the store does not answer.
        """
        if mode != "rb":
            raise ValueError(f"objects are read only, as bytes: {mode!r}")
        return cast(IO[Any], _Stream(self, _asked(self, lambda: filesystem(self.scheme).open(self.key, "rb"))))


def located(given: str | os.PathLike[str]) -> Path:
    """A path, or the `RemotePath` of an address; ``file://`` leads to this machine's own files."""
    text = str(given)
    if isinstance(given, RemotePath) or ":/" not in text:
        return given if isinstance(given, Path) else Path(given)
    if text.startswith("file:/"):
        return Path("/" + text[6:].lstrip("/"))
    match = _URL.fullmatch(text)
    return Path(given) if match is None else RemotePath(f"{match[1]}:", match[2])


def is_remote(path: Path) -> bool:
    """Whether it is an address in a store."""
    return isinstance(path, RemotePath)


_opened: dict[tuple[int, str], Any] = {}
"""fsspec's drivers, by process and protocol."""
_opening = threading.Lock()


def filesystem(scheme: str) -> Any:
    """fsspec's driver of a protocol, one for all threads.

    Raises:
        UsageError: it is not installed.
    """
    with _opening:
        key = (os.getpid(), scheme)
        if key not in _opened:
            _opened[key] = _open(scheme)
        return _opened[key]


def _open(scheme: str) -> Any:
    driver = DRIVERS[scheme]
    hint = f"pip install {driver}" if driver in ("gcsfs", "adlfs") else install_hint("remote")
    try:
        import fsspec

        # s3fs asks again itself; botocore below it would too, and one stuck object would take minutes.
        settings = {"config_kwargs": {"retries": {"max_attempts": 0}}} if scheme == "s3" else {}
        return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **settings)
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs the library {driver}: {hint}") from error


def forget_drivers() -> None:
    """Ends the connections of all drivers; the next request opens new ones, with what the environment says then."""
    for fs in list(_opened.values()):
        close = getattr(type(fs), "close_session", None)
        if close is not None and getattr(fs, "_s3", None) is not None:
            close(fs.loop, fs._s3)
    _opened.clear()


def stamp(info: dict[str, Any]) -> int:
    """Stands for the version of an object where files have their time of change in nanoseconds: the second of its last
    change, and in the place of fractions, which stores do not know, 30 bits of its etag.
    """
    changed = next((info[name] for name in ("LastModified", "last_modified", "updated", "mtime") if info.get(name)), 0)
    if isinstance(changed, str):
        changed = _seconds(changed)
    seconds = int(changed.timestamp() if hasattr(changed, "timestamp") else changed)
    tag = next((str(info[name]) for name in ("ETag", "etag", "content_settings_md5") if info.get(name)), "")
    digest = hashlib.blake2b(tag.encode(), digest_size=8).digest() if tag else b""
    return seconds * 10**9 + int.from_bytes(digest, "big") % 10**9


def _seconds(text: str) -> float:
    from datetime import datetime
    from email.utils import parsedate_to_datetime

    with contextlib.suppress(ValueError, TypeError):
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    with contextlib.suppress(ValueError, TypeError):
        return parsedate_to_datetime(text).timestamp()
    return 0.0


def _status_of(size: int, changed: int) -> os.stat_result:
    times = {"st_atime_ns": changed, "st_mtime_ns": changed, "st_ctime_ns": 0}
    return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, size, 0, changed // 10**9, 0), times)


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """What `os.DirEntry` is for a folder of this machine. ``size`` is in bytes, ``changed`` a `stamp`."""

    name: str
    path: str
    folder: bool
    size: int = 0
    changed: int = 0
    refused: str | None = None
    """Why it can be no path."""

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether objects lie below."""
        return self.folder

    def is_symlink(self) -> bool:
        """There are none."""
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As `RemotePath.stat`, without asking."""
        if self.refused is not None:
            raise OSError(None, self.refused)
        return _status_of(self.size, self.changed)


def scan(folder: Path) -> Iterator[RemoteEntry]:
    """What lies in a folder, in no order, page by page; nothing where there is no such folder.

    Raises:
        OSError: the store refuses, or a page did not come.
    """
    assert isinstance(folder, RemotePath)
    pages = _s3_pages(folder) if folder.scheme == "s3" and len(folder.parts) > 1 else _pages(folder)
    seen: set[str] = set()
    for page in pages:
        for info in page:
            is_folder = info.get("type") == "directory"
            whole = str(info["name"])
            name = (whole[:-1] if is_folder and whole.endswith("/") else whole).rpartition("/")[2]
            if is_folder and name in seen:
                continue  # named by two pages
            if name in ("", ".", ".."):
                yield RemoteEntry(name or "(empty)", f"{folder}/{name}", False, refused=NO_PATH)
            elif is_folder:
                seen.add(name)
                yield RemoteEntry(name, f"{folder}/{name}", True)
            else:
                yield RemoteEntry(name, f"{folder}/{name}", False, int(info.get("size") or 0), stamp(info))


def _pages(folder: RemotePath) -> Iterator[list[dict[str, Any]]]:
    fs, own = filesystem(folder.scheme), folder.key.rstrip("/")
    found = _asked(folder, lambda: fs.ls(folder.key + ("/" if folder.scheme.startswith("http") else ""), detail=True))
    inside = [info for info in found if str(info["name"]).rstrip("/") != own]
    for info in inside:
        if info.get("size") is None and info.get("type") != "directory":  # a web page lists names alone
            address = str(info["name"])
            if "?" in address or not address.startswith(own + "/"):
                continue  # a link to sort the page, or to elsewhere
            if address.endswith("/"):
                yield [{"name": address, "type": "directory"}]
                continue
            yield [{**_headers(folder, address), "name": address}]
        else:
            yield [info]


def _headers(folder: RemotePath, address: str) -> dict[str, Any]:
    """Size, time and etag of what a web server has; nothing where it says nothing."""
    fs = filesystem(folder.scheme)

    async def ask() -> dict[str, Any]:
        session = await fs.set_session()
        async with session.head(fs.encode_url(address), allow_redirects=True) as answer:
            if answer.status >= 400 and answer.status != 405:
                answer.raise_for_status()
            said = answer.headers
            names = {"ETag": "ETag", "LastModified": "Last-Modified", "size": "Content-Length"}
            return {name: said[header] for name, header in names.items() if header in said}

    from fsspec.asyn import sync

    return cast("dict[str, Any]", _asked(folder, lambda: sync(fs.loop, ask)))


def _s3_pages(folder: RemotePath) -> Iterator[list[dict[str, Any]]]:
    """Pages of `PAGE` keys, each asked for again where it does not come: a whole folder need not begin anew."""
    fs = filesystem("s3")
    bucket, *rest = folder.parts[1:]
    prefix = "/".join(rest) + "/" if rest else ""
    token: dict[str, str] = {}
    while True:
        asked = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/", "MaxKeys": PAGE, **token}
        page = _asked(folder, lambda asked=asked: fs.call_s3("list_objects_v2", **asked))  # type: ignore[misc]
        folders = [{"name": found["Prefix"], "type": "directory"} for found in page.get("CommonPrefixes", ())]
        files = [
            {"name": found["Key"], "size": found["Size"], "ETag": found["ETag"], "LastModified": found["LastModified"]}
            for found in page.get("Contents", ())
            if not found["Key"].endswith("/")
        ]
        yield folders + files
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


@contextlib.contextmanager
def fetched(path: Path, file: FileEntry, names: Iterable[str], *, whole: bool = True) -> Iterator[Path]:
    """A copy of an object on this machine with those called ``names`` beside it, all under their names, for as long as
    the block lasts. Without ``whole``, only the others. One that is not there any more is left out.

    Raises:
        MediaError: the object cannot be had: it is gone, refused, or changed since it was listed.
    """
    with tempfile.TemporaryDirectory(prefix="mmsearch-") as folder:
        place = Path(folder) / path.name
        try:
            if whole:
                size = _copy(path, place)
                if size != file.size:
                    raise MediaError("it changed while it was being read: it will be read at the next run")
                os.utime(place, ns=(file.mtime_ns, file.mtime_ns))
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    _copy(path.with_name(name), place.with_name(name))
        except FileNotFoundError as error:
            raise MediaError("it is not there any more: it was deleted after it was listed") from error
        except OSError as error:
            raise MediaError(reason_of(error)) from error
        yield place


def _copy(path: Path, to: Path) -> int:
    assert isinstance(path, RemotePath)

    def copy() -> int:
        filesystem(path.scheme).get_file(path.key, str(to))
        return to.stat().st_size

    try:
        return _asked(path, copy)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.filename == str(to):
            raise OSError(error.errno, error.strerror) from error
        raise


class _Stream:
    """An open object. What fails for now is asked for again, then said as a network that does not answer."""

    def __init__(self, path: RemotePath, stream: Any) -> None:
        self._path, self._stream = path, stream

    def read(self, size: int = -1) -> bytes:
        at = self._stream.tell()

        def read() -> bytes:
            self._stream.seek(at)
            return bytes(self._stream.read(size))

        return _asked(self._path, read)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _asked(path: RemotePath, request: Callable[[], T]) -> T:
    """What a request gives, after some attempts where a store is busy or does not answer.

    Raises:
        OSError: what is not there (`FileNotFoundError`), may not be read (`PermissionError`), or does not answer
            (``errno`` `ETIMEDOUT`, a lack that passes: see `mmsearch.core.shortage`).
    """
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except UsageError:
            raise
        except Exception as error:
            if not _passes(error):
                raise _as_of_files(error, path) from error
            if attempt + 1 == ATTEMPTS:
                raise OSError(errno.ETIMEDOUT, f"the store does not answer ({_shown(error)})", str(path)) from error
            time.sleep(FIRST_DELAY_S * 2**attempt * (0.5 + random.random()))
    raise AssertionError("there is at least one attempt")


def _passes(error: Exception) -> bool:
    """Whether asking again may help: throttled, cut off, a server in trouble. Not: no credentials, no such bucket."""
    code = next((one for one in (getattr(error, "status", None), getattr(error, "code", None)) if one), None)
    if isinstance(code, int) and code >= 400:
        return code >= 500 or code == 429
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return False
    if isinstance(error, (TimeoutError, asyncio.TimeoutError, ConnectionError)):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    return type(error).__module__.split(".")[0] in ("aiohttp", "botocore", "aiobotocore", "urllib3", "requests") and (
        "Credentials" not in type(error).__name__ and "Param" not in type(error).__name__
    )


def _as_of_files(error: Exception, path: RemotePath) -> OSError:
    code = getattr(error, "status", None)
    if code in (404, 410):
        return FileNotFoundError(errno.ENOENT, "there is no such object", str(path))
    if code in (401, 403) or "Credentials" in type(error).__name__:
        return PermissionError(errno.EACCES, f"the store refuses ({_shown(error)})", str(path))
    if isinstance(error, OSError):
        return error
    return OSError(None, f"the store cannot be asked ({_shown(error)})", str(path))


def _shown(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
