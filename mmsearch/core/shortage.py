"""Errors of the system and of libraries: what passes (a full disk, no memory) and is no file's fault, and what each is
called in a sentence.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mmsearch.core.errors import IndexDamaged, IndexMissing, MmsearchError, ResourceShortage, UsageError

_OF_SYSTEM = {
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "there is not enough memory",
    errno.EAGAIN: "the machine is too busy",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow so large here (`ulimit -f`, or the kind of disk)",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk does not answer as it should",
    errno.ESTALE: "the network folder is not there any more",
    errno.ETIMEDOUT: "the network folder does not answer",
    errno.EHOSTDOWN: "the network folder does not answer",
    errno.EHOSTUNREACH: "the network folder does not answer",
    errno.ENOTCONN: "the network folder is not connected",
    errno.ENXIO: "the disk is not there any more",
    errno.ENODEV: "the disk is not there any more",
}
_OF_PATHS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "the system does not permit it",
    errno.ENOENT: "there is no such file or folder",
    errno.ENAMETOOLONG: "the name is too long for this system",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.ELOOP: "its links lead in a circle",
    errno.EEXIST: "it is there already",
    errno.ENOTEMPTY: "the folder is not empty",
    errno.EBUSY: "another program holds it",
    errno.ETXTBSY: "another program holds it",
    errno.EBADF: "it was closed",
}
_CATALOGUE = "the catalogue could not be asked"
_OF_MACHINE = ("too many files are open", "too many threads are running", "the disk is full", _CATALOGUE)
TRIED_AGAIN = "it will be tried again at the next run"
"""Ends the reason of a file that was skipped because something was short."""
_ALLOCATION = re.compile(
    r"bad_alloc|bad allocation|(can't|cannot|could not|failed to|unable to) (allocate|mmap)|not enough memory|"
    r"out of memory|insufficient memory|memory allocation|failed to map segment from shared object(?!: Operation not)",
    re.IGNORECASE,
)
"""How libraries in other languages, and the loader of libraries, say that there is no memory: as errors of types of
their own. (Where a disk forbids programs, the loader adds that the operation is not permitted.)"""
_DAMAGED = (11, 26)
"""SQLite's result codes CORRUPT and NOTADB."""
_MODULES = ("sqlite3",)
"""An error from there while a file is read is the catalogue's, never the file's."""


def shortage_of(error: BaseException | None) -> str | None:
    """What is short, in words, where an error or one that caused it says so; ``None`` where it is something else."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        number = getattr(error, "errno", None)
        if isinstance(error, MemoryError):
            return _OF_SYSTEM[errno.ENOMEM]
        if isinstance(error, OSError) and number in _OF_SYSTEM:
            return _OF_SYSTEM[number]
        if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
            return "too many threads are running"
        if type(error).__module__ in _MODULES:
            return f"{_CATALOGUE} ({error})"
        if not isinstance(error, MmsearchError) and _ALLOCATION.search(str(error)):
            return _OF_SYSTEM[errno.ENOMEM]
        error = error.__cause__ or error.__context__
    return None


def is_of_machine(reason: str) -> bool:
    """Whether a file was skipped because of what is short for every file. Lack of memory may be of one file alone, and
    a disk that does not answer of those that lie on it.
    """
    return reason.endswith(TRIED_AGAIN) and reason.startswith(_OF_MACHINE)


def sentence_of(error: BaseException) -> str | None:
    """What an error of the system or of a lack of memory says, with the file that it names; ``None`` for others."""
    if isinstance(error, OSError):
        what = _OF_SYSTEM.get(error.errno or 0) or _OF_PATHS.get(error.errno or 0)
        what = what or (error.strerror or str(error) or type(error).__name__)
        names = [Path(str(name)) for name in (error.filename, error.filename2) if name is not None]
        shown = " and ".join(str(name) for name in dict.fromkeys(names)).encode("utf-8", "backslashreplace").decode()
        return f"{shown}: {what}" if shown else what
    return shortage_of(error)


@contextlib.contextmanager
def errors_said(index: str | os.PathLike[str] | None) -> Iterator[None]:
    """Turns errors of the system that the block meets into one sentence each; others pass.

    Raises:
        IndexDamaged, IndexMissing: SQLite cannot read the index; it was taken away while it was open.
        ResourceShortage: a disk is full, memory or descriptors are short, …
        UsageError: a file or folder that may not be read or written, a name that is too long, …
    """
    try:
        yield
    except (MmsearchError, BrokenPipeError):
        raise
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            raise IndexDamaged(f"the index {index} is damaged ({error}): run `mmsearch verify` on it") from error
        if isinstance(error, FileNotFoundError) and not _is_there(index):
            raise IndexMissing(
                f"the index {index} is not there any more: it was removed or moved while it was open"
            ) from error
        if shortage_of(error) is not None:
            raise ResourceShortage(f"{sentence}: what was complete is kept; put that right and try again") from error
        raise UsageError(f"{sentence}: put that right and try again") from error


Class = TypeVar("Class", bound=type)


def says_errors(kind: Class) -> Class:
    """Lets all public methods of a class whose objects have a ``place`` say errors of the system: see `errors_said`."""
    for name, method in list(vars(kind).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(kind, name, _saying(method))
    return kind


def _saying(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def said(self: Any, *arguments: Any, **named: Any) -> Any:
        with errors_said(self.place):
            result = method(self, *arguments, **named)
        return _going_through(iter(result), self.place) if inspect.isgenerator(result) else result

    return said


def _going_through(results: Iterator[Any], place: str) -> Iterator[Any]:
    with errors_said(place):
        yield from results


def _is_there(index: str | os.PathLike[str] | None) -> bool:
    """Also where it is in no folder, or cannot be looked for."""
    if index is None or not Path(index).is_absolute():
        return True
    with contextlib.suppress(OSError):
        return Path(index).is_dir() and any(Path(index).iterdir())
    return True
