"""What a writer leaves beside the catalogue when it closes: ``catalogue.closed``, the size and digest of the file.

It stands there exactly while nobody writes: the next writer takes it away, and syncs that, before it touches anything.
So where it stands, the catalogue is complete in itself, and two things can be told that SQLite cannot tell: whether a
byte of the file has changed since, and whether a write-ahead log that lies beside it belongs there. It does not: SQLite
would believe it, and bring old pages back. After a crash there is no such file, and the log is what it seems.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from mmsearch.core.system import sync_directory

_READ = 8 << 20


class Closed(NamedTuple):
    """The catalogue as its last writer left it."""

    size: int
    digest: str

    @classmethod
    def read(cls, catalogue: Path) -> Closed | None:
        """What lies beside a catalogue; ``None`` where nothing does, or nothing that makes sense."""
        try:
            values = json.loads(note_of(catalogue).read_text(encoding="utf-8"))
            return cls(int(values["bytes"]), str(values["blake2b"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @classmethod
    def take(cls, catalogue: Path) -> Closed | None:
        """Reads it and takes it away: somebody is going to write. A log that does not belong is set aside."""
        if has_foreign_log(catalogue):
            # Copied and emptied in place: whoever has the catalogue open keeps the file, and knows it to be empty.
            shutil.copyfile(log_of(catalogue), set_aside_of(catalogue))
            os.truncate(log_of(catalogue), 0)
        found = cls.read(catalogue)
        if note_of(catalogue).exists():
            note_of(catalogue).unlink()
            sync_directory(catalogue.parent)
        return found

    @classmethod
    def of(cls, catalogue: Path) -> Closed:
        """The file as it is now."""
        digest, size = blake2b(digest_size=16), 0
        with catalogue.open("rb", buffering=0) as file:
            while block := file.read(_READ):
                digest.update(block)
                size += len(block)
        return cls(size, digest.hexdigest())

    def leave(self, catalogue: Path) -> None:
        """Writes it beside the catalogue, where it can be: without it, less is known and nothing is wrong."""
        note = note_of(catalogue)
        draft = note.with_name(f"{note.name}.new")
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps({"bytes": self.size, "blake2b": self.digest}) + "\n", encoding="utf-8")
            draft.replace(note)


def has_foreign_log(catalogue: Path) -> bool:
    """Whether a write-ahead log lies beside a catalogue that was closed without one.

    Reads the note before and after, so that a writer that begins meanwhile is not taken for that.
    """
    before = _stamp(note_of(catalogue))
    return before is not None and _size(log_of(catalogue)) > 0 and _stamp(note_of(catalogue)) == before


def log_has_content(catalogue: Path) -> bool:
    """Whether the write-ahead log holds anything."""
    return _size(log_of(catalogue)) > 0


def note_of(catalogue: Path) -> Path:
    """Where the note lies."""
    return catalogue.with_suffix(".closed")


def log_of(catalogue: Path) -> Path:
    """Where SQLite keeps the write-ahead log."""
    return catalogue.with_name(catalogue.name + "-wal")


def set_aside_of(catalogue: Path) -> Path:
    """Where a log goes that does not belong."""
    return catalogue.with_name(catalogue.name + "-wal.foreign")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _size(path: Path) -> int:
    try:
        return os.path.getsize(path)  # noqa: PTH202
    except OSError:
        return 0
