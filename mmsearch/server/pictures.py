"""Small pictures of indexed files as JPEG, kept for a while: a page asks for the same ones again and again."""

from __future__ import annotations

import io
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.core.types import Modality
from mmsearch.query.thumbnail import thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image

_DECODING = threading.BoundedSemaphore(4)
"""A large picture takes some hundred megabytes while it is decoded, and a page asks for dozens at once."""
KEPT = 2000
"""Pictures of about 10 kB."""
SIZES = (160, 320, 640, 1280)
"""Pixels of the longer side that may be asked for; others become the next larger one."""


def small_picture(path: str, modality: Modality, size: int, at_s: float | None) -> bytes | None:
    """The picture of a file, or of a video at a time, as JPEG; ``None`` where there is none. Any thread may ask."""
    side = next((kept for kept in SIZES if kept >= size), SIZES[-1])
    return _made(path, modality, side, at_s, _changed(path))


@lru_cache(maxsize=KEPT)
def _made(path: str, modality: Modality, side: int, at_s: float | None, changed: int) -> bytes | None:
    with _DECODING:
        picture = thumbnail(path, modality, side, at_s)
    return None if picture is None else as_jpeg(picture)


def as_jpeg(picture: Image) -> bytes:
    """An RGB picture as a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def _changed(path: str) -> int:
    """When the file was changed; 0 for a member of an archive."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0
