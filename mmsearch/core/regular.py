"""Opening files that somebody else may have put in place: only regular ones, which end and do not make anybody wait."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

NOT_REGULAR = "not a regular file"


class NotRegularError(OSError):
    """A pipe, a device, a socket or a folder lies where a file was expected."""


def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> BinaryIO:
    """Opens a regular file for reading, without a buffer. Never waits, as a pipe that nobody writes to would let it.

    Without ``follow``, a symbolic link in the place of the file itself is none.

    Raises:
        NotRegularError: it is something else.
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegularError(None, NOT_REGULAR, str(path))
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int) -> bytes | None:
    """All bytes of a regular file; ``None`` where it has more than ``most``.

    Raises:
        NotRegularError, OSError: see `open_regular`.
    """
    with open_regular(path) as file:
        data = b""
        while len(data) <= most and (block := file.read(most + 1 - len(data))):
            data += block
    return data if len(data) <= most else None
