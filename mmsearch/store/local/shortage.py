"""Errors of the system and of SQLite that are nobody's fault and pass: said in one sentence, as `ResourceShortage`."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from mmsearch.core.errors import ResourceShortage
from mmsearch.core.shortage import shortage_of

_OF_SQLITE = {
    3: "the catalogue may not be opened",
    5: "the catalogue is locked by another program",
    6: "the catalogue is locked by another program",
    7: "there is not enough memory",
    8: "the catalogue cannot be written to",
    10: "the disk does not answer as it should",
    13: "the disk is full",
    14: "a file of the catalogue cannot be opened (too many open files, or no access)",
}
"""By SQLite's primary result code: PERM, BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN."""


@contextlib.contextmanager
def shortages_said(index: Path) -> Iterator[None]:
    """Turns what the block meets of such errors into one that names the index; others pass.

    Raises:
        ResourceShortage: a disk is full, memory or descriptors are short, …
    """
    try:
        yield
    except (sqlite3.Error, OSError, MemoryError) as error:
        what = shortage_in_catalogue(error) if isinstance(error, sqlite3.Error) else shortage_of(error)
        if what is None:
            raise
        name = getattr(error, "filename", None)
        raise ResourceShortage(
            f"the index {index} could not be used: {what}{f' ({name})' if name else ''}. What was complete is kept: "
            "put that right and run the same command again"
        ) from error


def shortage_in_catalogue(error: sqlite3.Error) -> str | None:
    """What is short where SQLite raises an error, in words; ``None`` where it is something else."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else _OF_SQLITE.get(code & 0xFF)
