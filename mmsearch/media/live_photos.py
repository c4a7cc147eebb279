"""Apple's Live Photos: a photo and a clip of the moments around it, two files with one name.

The photo stands for both: the clip shows nothing else, and two hits for one moment help nobody.
"""

from __future__ import annotations

import struct
from pathlib import Path

from mmsearch.core.errors import MediaError
from mmsearch.media.base import opened
from mmsearch.media.formats import FORMATS, IMAGE, RAW, format_by_content
from mmsearch.media.image.metadata import exif_of
from mmsearch.media.image.pillow_guard import HEADER_BYTES, open_image, pillow_guard
from mmsearch.media.video.reader import look_at_clip

MAX_CLIP_S = 4.0
"""Apple's clips last about three seconds. Where no identifier tells, a longer video is one of its own, whatever its
name: cameras number photos and videos alike."""
_MAKER_NOTE, _APPLE, _CONTENT_IDENTIFIER = 0x927C, b"Apple iOS\0", 0x0011


def is_live_photo(photo: Path, clip: Path) -> bool:
    """Whether a video is the clip of a photo that has its name: both carry the same identifier, or, where one of them
    has lost it, the video is as short as such clips are.
    """
    try:
        seconds, clips = look_at_clip(clip)
        photos = _content_identifier(photo)
    except MediaError:
        return False
    if clips and photos:
        return clips.strip().lower() == photos.strip().lower()
    return seconds is not None and seconds <= MAX_CLIP_S


def _content_identifier(photo: Path) -> str | None:
    """Of Apple's maker note: a directory as TIFF's, offsets from its own beginning (ExifTool, Apple tags, 0x0011).

    Raises:
        MediaError: it is no picture.
    """
    with opened(photo, None) as stream:
        format_ = format_by_content(stream.read(HEADER_BYTES), IMAGE)
        stream.seek(0)
        if format_ is None:
            raise MediaError("not an image")
        with (
            pillow_guard(format_.name),
            open_image(stream, FORMATS["TIFF"] if format_.reader == RAW else format_) as image,
        ):
            note = exif_of(image, header_alone=True).photo.get(_MAKER_NOTE)
    if not isinstance(note, bytes) or not note.startswith(_APPLE):
        return None
    try:
        (count,) = struct.unpack_from(">H", note, 14)
        for number in range(min(count, 200)):
            tag, kind, size, offset = struct.unpack_from(">HHII", note, 16 + 12 * number)
            if (tag, kind) == (_CONTENT_IDENTIFIER, 2) and size > 4:
                return note[offset : offset + size].rstrip(b"\0").decode("latin-1") or None
    except struct.error:
        pass
    return None
