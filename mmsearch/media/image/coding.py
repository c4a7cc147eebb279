"""How the colours of a picture are coded, where its file says so by the code points of ITU-T H.273.

PNG has them in a chunk (cICP), HEIF and AVIF in a box (colr, nclx), any format in an ICC profile (tag cicp).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from mmsearch.media.hdr import Coding

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_HEADER_BYTES = 4_000_000
"""A ``meta`` box that is longer is not looked at."""


def coding_of(image: ImageFile, stream: IO[bytes]) -> Coding | None:
    """What an opened image says; ``None``: nothing, or what cannot be read. ``stream`` stays where it is.

    A gain map, which would make HDR of a picture in sRGB, is another item of the file: it does not count.
    """
    try:
        found = _of_profile(image.info.get("icc_profile"))
        if found is None and image.format == "HEIF":
            found = _of_nclx(image.info.get("nclx_profile"))
        if found is None and image.format in {"PNG", "AVIF"}:
            place = stream.tell()
            try:
                found = _of_png(stream) if image.format == "PNG" else _of_avif(stream)
            finally:
                stream.seek(place)
    except (struct.error, LookupError, StopIteration, TypeError, ValueError, OSError):
        return None
    return found


def _of_profile(profile: Any) -> Coding | None:
    """ICC.1:2022, 9.2.17 and 10.3: four bytes behind the type, the first two of which count here."""
    if not isinstance(profile, bytes) or b"cicp" not in profile[128:]:
        return None
    (count,) = struct.unpack_from(">I", profile, 128)
    for number in range(min(count, 200)):
        tag, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        if tag == b"cicp" and size >= 12:
            return Coding(profile[offset + 8], profile[offset + 9])
    return None


def _of_nclx(nclx: Any) -> Coding | None:
    if not isinstance(nclx, dict):
        return None
    return Coding(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))


def _of_png(stream: IO[bytes]) -> Coding | None:
    """PNG specification, third edition, 11.3.2.6: the chunk stands before the picture."""
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"cICP":
            body = stream.read(4)
            return Coding(body[0], body[1])
        if kind == b"IDAT":
            return None
        stream.seek(length + 4, io.SEEK_CUR)
    return None


def _of_avif(stream: IO[bytes]) -> Coding | None:
    """ISO/IEC 23008-12: the property ``colr`` that is associated with the primary item."""
    stream.seek(0)
    meta = _meta(stream)
    if meta is None:
        return None
    boxes = dict(_boxes(meta[4:]))
    inner = list(_boxes(boxes[b"iprp"]))
    properties = list(_boxes(next(body for kind, body in inner if kind == b"ipco")))
    primary = int.from_bytes(boxes[b"pitm"][4:], "big")
    for association in (body for kind, body in inner if kind == b"ipma"):
        for number in _associated(association, primary):
            kind, body = properties[number - 1]
            if number and kind == b"colr" and body[:4] == b"nclx":
                return Coding(*struct.unpack_from(">HH", body, 4))
    return None


def _meta(stream: IO[bytes]) -> bytes | None:
    while len(head := stream.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind == b"meta":
            return stream.read(min(size, MAX_HEADER_BYTES) - 8) if size >= 12 else None
        if size < 8:
            return None
        stream.seek(size - 8, io.SEEK_CUR)
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        size = size or len(data) - place
        if size < 8:
            return
        yield kind, data[place + 8 : place + size]
        place += size


def _associated(ipma: bytes, item: int) -> Iterator[int]:
    """Numbers of an item's properties, from 1."""
    version, is_wide = ipma[0], ipma[3] & 1
    (count,) = struct.unpack_from(">I", ipma, 4)
    place, id_size = 8, 2 if version < 1 else 4
    for _ in range(count):
        its = int.from_bytes(ipma[place : place + id_size], "big")
        place += id_size
        number = ipma[place]
        place += 1
        size = 2 if is_wide else 1
        for at in range(place, place + number * size, size):
            if its == item:
                yield int.from_bytes(ipma[at : at + size], "big") & (0x7FFF if is_wide else 0x7F)
        place += number * size
