"""Lack of resources: of the machine, for the moment, and not the fault of the file that happened to be at hand."""

from __future__ import annotations

import errno

_OF_SYSTEM = {
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "there is not enough memory",
    errno.EAGAIN: "the machine is too busy",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
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
_MODULES = ("sqlite3",)
"""An error from there while a file is read is the catalogue's, never the file's."""


def shortage_of(error: BaseException | None) -> str | None:
    """What is short, in words, where an error or one that caused it says so; ``None`` where it is something else."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return _OF_SYSTEM[errno.ENOMEM]
        number = getattr(error, "errno", None)
        if isinstance(error, OSError) and number in _OF_SYSTEM:
            return _OF_SYSTEM[number]
        if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
            return "too many threads are running"
        if type(error).__module__ in _MODULES:
            return f"the catalogue could not be asked ({error})"
        error = error.__cause__ or error.__context__
    return None
