"""Frames and headers of videos: an upright RGB picture, a glance for finding cuts, what the container says.

Works on PyAV's objects without importing it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import MediaInfo
from mmsearch.media import hdr
from mmsearch.media.hdr import Coding
from mmsearch.media.metadata.values import camera_name, parse_date
from mmsearch.media.video.similarity import THUMBNAIL_SIDE, Thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

_POINTS = 3
"""A glance averages 3 × 3 points for each of its pixels."""
_HD_HEIGHT, _HD_WIDTH = 576, 1280
_UNSPECIFIED, _JPEG_RANGE = 2, 2


def glance(frame: Any) -> Thumbnail:
    """A small picture of a frame in its own colour space, uint8 (16, 16, 3), from a few points of its planes.

    Costs microseconds where scaling the frame would cost milliseconds; good for comparing frames of one video.
    """
    if not _has_plain_planes(frame):
        frame = frame.reformat(format="yuv420p", threads=1)
    bits = frame.format.components[0].bits
    return np.stack([_points(frame.planes[number], bits) for number in range(3)], axis=2)


def _has_plain_planes(frame: Any) -> bool:
    """Whether luma (or a colour) has a plane of its own, and so have the two other components."""
    format_ = frame.format
    plain = format_.is_planar and not format_.is_big_endian and len(frame.planes) >= 3
    return plain and 8 <= format_.components[0].bits <= 16


def _points(plane: Any, bits: int) -> npt.NDArray[np.uint8]:
    kind = np.dtype(np.uint8 if bits == 8 else "<u2")
    line = plane.line_size // kind.itemsize
    values = np.frombuffer(plane, kind, count=line * plane.height)
    sums = values.take(_places(plane.height, plane.width, line)).sum(axis=0, dtype=np.uint32)
    means: npt.NDArray[np.uint32] = sums // np.uint32(_POINTS**2 << (bits - 8))
    return means.astype(np.uint8).reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE)


@lru_cache(maxsize=16)
def _places(height: int, width: int, line: int) -> npt.NDArray[np.intp]:
    """Where the points of a glance lie in a plane with lines of ``line`` values: (9, 256), those of a pixel in a
    column. Worked out once for all frames of a size.
    """
    side = THUMBNAIL_SIDE * _POINTS
    rows, columns = np.arange(side) * height // side, np.arange(side) * width // side
    flat = (rows[:, None] * line + columns[None, :]).reshape(THUMBNAIL_SIDE, _POINTS, THUMBNAIL_SIDE, _POINTS)
    places: npt.NDArray[np.intp] = flat.transpose(1, 3, 0, 2).reshape(_POINTS**2, -1)
    return places


class Show:
    """How the frames of one video are shown.

    ``side``: pixels that the shorter side of a picture gets at most. ``shape``: width of a pixel by its height. How
    the video is turned is read from the first frame alone, because reading it ties a frame into a cycle that only
    the garbage collector frees, late, with its megabytes.
    """

    def __init__(self, side: int, shape: float) -> None:
        self._side = side
        self._shape = shape
        self._matrix: tuple[int, int, int, int] | None = None

    def picture(self, frame: Any) -> Image:
        """A frame to an upright RGB image of square pixels, never larger than the frame."""
        if self._matrix is None:
            self._matrix = display_matrix(frame)
        method = turn(self._matrix)
        image = _to_rgb(frame, self._side, self._shape)
        return image if method is None else image.transpose(method)


def _to_rgb(frame: Any, side: int, shape: float) -> Image:
    """Scaled and converted in one step, by the matrix and range that the stream names.

    Where it names no matrix, BT.709 is taken for high definition and BT.601 below, as players do.
    """
    from PIL import Image

    width, height = square_size(frame, shape)
    scale = min(1.0, side / min(width, height))
    coding = Coding(int(frame.color_primaries), int(frame.color_trc))
    full_range = frame.color_range == _JPEG_RANGE or frame.format.name.startswith("yuvj")
    small = frame.reformat(
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
        format="rgb48le" if coding.is_hdr else "rgb24",
        src_colorspace=_matrix(frame),
        src_color_range="JPEG" if full_range else "MPEG",
        dst_color_range="JPEG",
        interpolation="AREA" if scale < 1 else "BICUBIC",
        threads=1,
    )
    pixels = small.to_ndarray()
    return Image.fromarray(hdr.to_srgb(pixels, coding) if coding.is_hdr else pixels)


def _matrix(frame: Any) -> str | int:
    if int(frame.colorspace) not in {_UNSPECIFIED, 0}:
        return int(frame.colorspace)
    return "ITU709" if frame.height > _HD_HEIGHT or frame.width >= _HD_WIDTH else "ITU601"


def pixel_shape(stream: Any) -> float:
    """The width of a pixel by its height; 1 where the stream does not say, or says what cannot be."""
    ratio = float(stream.codec_context.sample_aspect_ratio or 1)
    return ratio if 0.1 <= ratio <= 10 else 1.0


def square_size(coded: Any, shape: float) -> tuple[int, int]:
    """The size at which a frame is meant to be seen, before turning, if its pixels are not square."""
    if shape >= 1:
        return max(1, round(coded.width * shape)), coded.height
    return coded.width, max(1, round(coded.height / shape))


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """The part a, b, c, d of a frame's display matrix: what is at (x, y) is shown at (ax + cy, bx + dy)."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            raw = bytes(data)
            if len(raw) >= 36:
                a, b, _, c, d = struct.unpack("=5i", raw[:20])
                return a, b, c, d
    return 1, 0, 0, 1


def turn(matrix: tuple[int, int, int, int]) -> Transpose | None:
    """The transposition next to a display matrix; ``None`` for the identity and for nonsense."""
    from PIL.Image import Transpose

    a, b, c, d = matrix
    if not _swaps_sides(matrix):
        signs = (a < 0, d < 0)
        return {
            (True, False): Transpose.FLIP_LEFT_RIGHT,
            (False, True): Transpose.FLIP_TOP_BOTTOM,
            (True, True): Transpose.ROTATE_180,
        }.get(signs)
    return {
        (False, False): Transpose.TRANSPOSE,
        (False, True): Transpose.ROTATE_270,
        (True, False): Transpose.ROTATE_90,
        (True, True): Transpose.TRANSVERSE,
    }[(b < 0, c < 0)]


def _swaps_sides(matrix: tuple[int, int, int, int]) -> bool:
    return max(abs(matrix[1]), abs(matrix[2])) > max(abs(matrix[0]), abs(matrix[3]))


def read_info(container: Any, stream: Any, first_frame: Any = None) -> MediaInfo:
    """What the header of a video says, and its first frame, which tells how it is turned.

    Dates are local: Apple's as the file gives it, where it was taken; ``creation_time``, which is in UTC, in the time
    zone of this machine.
    """
    tags = {name.lower(): value for name, value in {**stream.metadata, **container.metadata}.items()}
    width, height = square_size(first_frame or stream.codec_context, pixel_shape(stream))
    if first_frame is not None and _swaps_sides(display_matrix(first_frame)):
        width, height = height, width
    latitude, longitude = _position(tags)
    duration = float(container.duration) / 1e6 if container.duration and container.duration > 0 else None
    return MediaInfo(
        width=width,
        height=height,
        duration_s=duration,
        taken_at=_taken_at(tags),
        camera=camera_name(
            _first(tags, "com.apple.quicktime.make", "make", "com.android.manufacturer"),
            _first(tags, "com.apple.quicktime.model", "model", "com.android.model"),
        ),
        latitude=latitude,
        longitude=longitude,
        description=_first(tags, "description", "com.apple.quicktime.description", "title", "comment"),
    )


def _first(tags: Mapping[str, str], *names: str) -> str | None:
    return next((tags[name].strip() for name in names if tags.get(name, "").strip()), None)


def _taken_at(tags: Mapping[str, str]) -> str | None:
    """Apple's local time before the container's UTC; clocks that were never set do not count."""
    for name in ("com.apple.quicktime.creationdate", "creation_time", "date"):
        written = tags.get(name, "").strip()
        date = parse_date(written)
        if date and date[:4] not in {"1904", "1970"}:
            return _local(written, date) if name == "creation_time" else date
    return None


def _local(written: str, date: str) -> str:
    """A date in the time zone of this machine, where it says that it is in UTC."""
    if not re.search(r"[T ]\d.*(Z|[+-]00:?00)$", written):
        return date
    try:
        return datetime.fromisoformat(date + "+00:00").astimezone().replace(tzinfo=None).isoformat()
    except (OverflowError, ValueError, OSError):  # no such time in this zone
        return date


def _position(tags: Mapping[str, str]) -> tuple[float | None, float | None]:
    """Latitude and longitude from an ISO 6709 string such as ``+48.8577+002.295/``."""
    text = _first(tags, "com.apple.quicktime.location.iso6709", "location", "location-eng") or ""
    match = re.match(r"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)", text)
    if not match:
        return None, None
    latitude, longitude = float(match[1]), float(match[2])
    if abs(latitude) > 90 or abs(longitude) > 180 or latitude == longitude == 0:
        return None, None
    return latitude, longitude
