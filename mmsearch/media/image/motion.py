"""Motion photos: a picture with a short video behind it in the same file, as Google's and Samsung's cameras make them.

Of a JPEG the video stands behind the picture's end (Android's Motion Photo format 1.0, MVIMG, Samsung),
of a HEIF file in a box ``mpvd``.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mmsearch.core.errors import MediaError
from mmsearch.media.base import DecodedSegment, DecodeOptions
from mmsearch.media.formats import Format
from mmsearch.media.video.reader import VideoDecoder
from mmsearch.media.video.similarity import SAME_PICTURE, frame_difference, thumbnail

MAX_BYTES = 256_000_000
"""Of a file in which a video is looked for, which is held in memory."""
_VIDEO = re.compile(rb"\x00\x00\x00.ftyp(?:mp4|iso|qt  |avc|MSNV|3gp|M4V)", re.DOTALL)
_END_OF_JPEG = b"\xff\xd9"


def clip_of(stream: IO[bytes], format_: Format) -> bytes | None:
    """The video in a file, or ``None``. Costs two bytes where a JPEG ends as it should."""
    size = stream.seek(0, io.SEEK_END)
    if format_.name not in {"JPEG", "HEIF"} or not 2 < size <= MAX_BYTES:
        return None
    if format_.name == "HEIF":
        return _box(stream, b"mpvd")
    stream.seek(-2, io.SEEK_END)
    if stream.read(2) == _END_OF_JPEG:
        return None
    stream.seek(0)
    data = stream.read()
    match = _VIDEO.search(data)
    return None if match is None else data[match.start() :]


def _box(stream: IO[bytes], wanted: bytes) -> bytes | None:
    stream.seek(0)
    while len(head := stream.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind == wanted:
            return stream.read() if size == 0 else stream.read(size - 8) if size > 8 else None
        if size < 8:
            return None
        stream.seek(size - 8, io.SEEK_CUR)
    return None


def moments(clip: bytes, still: DecodedSegment, path: Path, options: DecodeOptions) -> Iterator[DecodedSegment]:
    """What a clip shows besides the picture itself, with times in the clip. Nothing where it cannot be read."""
    assert still.image is not None
    seen = thumbnail(still.image)
    usual = DecodeOptions(options.min_side, options.max_megapixels, codec_threads=options.codec_threads)
    try:
        for moment in VideoDecoder().decode(path, usual, clip).segments:
            if moment.image is not None and frame_difference(seen, thumbnail(moment.image)) >= SAME_PICTURE:
                yield moment
    except MediaError:
        return
