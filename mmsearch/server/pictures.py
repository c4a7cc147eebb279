"""Small pictures of indexed files as JPEG, kept for a while: a page asks for the same ones again and again."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.search.thumbnail import thumbnail
from mmsearch.types import Modality

if TYPE_CHECKING:
    from PIL.Image import Image

KEPT = 2000
"""Pictures of about 10 kB."""
SIZES = (160, 320, 640, 1280)
"""Pixels of the longer side that may be asked for; others become the next larger one."""


class Pictures:
    """Makes and keeps small pictures. Any number of threads may ask."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, float | None, int, int], bytes | None] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: str, modality: Modality, size: int, at_s: float | None) -> bytes | None:
        """The picture of a file, or of a video at a time, as JPEG; ``None`` where there is none."""
        side = next((one for one in SIZES if one >= size), SIZES[-1])
        key = (path, at_s, side, _changed(path))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        picture, data = thumbnail(path, modality, side, at_s), None
        if picture is not None:
            data = as_jpeg(picture)
        with self._lock:
            self._kept[key] = data
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return data


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
