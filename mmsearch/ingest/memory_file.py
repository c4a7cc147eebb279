"""A file whose bytes are already at hand, for decoders that ask for a path."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import IO, Any

_Path: Any = type(Path())  # the class of this system's paths; only that one can be derived from before Python 3.12


class MemoryFile(_Path):  # type: ignore[misc]
    """A path that opens as ``data``, whatever lies there. Decoders that read through ``open`` need not know."""

    data: bytes

    def __new__(cls, path: Path, data: bytes) -> MemoryFile:
        """The file at ``path``, as if it held ``data``."""
        made: MemoryFile = _Path.__new__(cls, path)
        made.data = data
        return made

    def __init__(self, path: Path, data: bytes) -> None:
        if sys.version_info >= (3, 12):
            super().__init__(path)

    def open(self, mode: str = "r", *_: Any, **__: Any) -> IO[bytes]:
        """A fresh reader of the bytes; only binary reading makes sense here."""
        if mode != "rb":
            raise ValueError(f"a file in memory opens for reading bytes, not as {mode!r}")
        return io.BytesIO(self.data)

    def with_segments(self, *segments: Any) -> Path:
        """What is derived from this path (its parent, say) is an ordinary path."""
        return Path(*segments)

    def _from_parsed_parts(self, *parts: Any) -> Path:  # the same, before Python 3.12
        plain: Path = _Path._from_parsed_parts(*parts)
        return plain
