"""What a walk gives and what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mmsearch.core.options import Options, option
from mmsearch.core.shortage import TRIED_AGAIN, shortage_of

ARCHIVE_SUFFIX = ".tar"
"""An archive is walked like a file, but sorts like a folder, because its samples lie below its name."""

SUBTITLES = (".srt", ".vtt", ".ass", ".ssa", ".lrc")
"""Suffixes of files that hold what is said in a video or recording beside them."""


class FileEntry(NamedTuple):
    """A regular file; ``path`` is POSIX and relative to the root.

    ``sidecars`` names what lies beside it and is about it, with sizes and times: it changes when they do.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    sidecars: str = ""


class Unreadable(NamedTuple):
    """Something that was seen and cannot be read; ``is_directory`` when all below it is unknown."""

    path: str
    reason: str
    is_directory: bool


@dataclass(frozen=True)
class WalkRules(Options):
    """What the walk leaves out.

    Hidden names (leading dot) are left out unless ``hidden``. ``exclude`` holds patterns in gitignore syntax,
    relative to the root; a file ``.mmsearchignore`` in any folder adds patterns for what lies below it.
    """

    hidden: bool = option(False, "Also index hidden files and folders.", flag="--hidden")
    exclude: tuple[str, ...] = option((), "Leave out what matches (gitignore syntax); repeatable.", flag="--exclude")


def reason_of(error: OSError) -> str:
    """Why something cannot be read, in plain words."""
    if isinstance(error, PermissionError):
        return "permission denied"
    if (short := shortage_of(error)) is not None:
        return f"{short}: {TRIED_AGAIN}"
    return (error.strerror or type(error).__name__).lower()
