"""Small pictures of indexed files, for contact sheets, terminals and the page of the server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.core.errors import MediaError, MmsearchError
from mmsearch.core.modalities import has_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.core.types import Modality


def thumbnail(path: str, modality: Modality, size: int, at_s: float | None = None) -> Image | None:
    """The picture of a file, of a video the frame at ``at_s`` seconds, within ``size`` × ``size`` pixels, RGB.

    ``None`` for texts, and where no picture can be read.
    """
    from mmsearch.query.question import load_picture

    if not has_pictures(modality):
        return None
    try:
        picture = load_picture(Path(path), size, at_s=at_s)
    except (MediaError, MmsearchError):
        return None
    picture = picture.convert("RGB")
    picture.thumbnail((size, size))
    return picture
