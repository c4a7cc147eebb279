"""What a picture says of itself: EXIF, GPS, IPTC and XMP to one MediaInfo.

Damaged tags are left out, never fatal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmsearch.core.types import MediaInfo
from mmsearch.media.metadata.values import camera_name, lines_of, parse_date, place_of, rating_of, text_of
from mmsearch.media.metadata.xmp import Values, date_of, date_of_file, keywords_of, read_xmp, xmp_info

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Tags = Mapping[int, Any]

MAKE, MODEL, ORIENTATION, DATE_TIME, IMAGE_DESCRIPTION = 0x010F, 0x0110, 0x0112, 0x0132, 0x010E
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_DATE_TIME_ORIGINAL, _DATE_TIME_DIGITIZED, _LENS_MODEL, _USER_COMMENT = 0x9003, 0x9004, 0xA434, 0x9286
_RATING = 0x4746
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS, _XP_SUBJECT = 0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F

_BOILERPLATE = re.compile(
    r"(olympus|minolta|konica|samsung|kodak|sony|casio|digital|camera|image|picture|dsc|dcim|untitled|default|"
    r"screenshot|created with (gimp|the gimp)|file source.*|[\W\d_]+|\s)*",
    re.IGNORECASE,
)
"""What cameras and programs write where a person's description should stand."""


@dataclass(frozen=True)
class ExifTags:
    """The three directories of EXIF that matter here, by tag number."""

    main: Tags = field(default_factory=dict)
    photo: Tags = field(default_factory=dict)
    gps: Tags = field(default_factory=dict)

    @property
    def orientation(self) -> int:
        """1 to 8; 1 where the tag is missing or makes no sense."""
        value = self.main.get(ORIENTATION)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1


def exif_of(image: ImageFile, *, header_alone: bool = False) -> ExifTags:
    """The EXIF tags of an opened image, as much of them as can be read. They may stand behind the picture of a PNG, so
    Pillow decodes that first, unless ``header_alone``.
    """
    from PIL.Image import Image

    try:
        exif = Image.getexif(image) if header_alone else image.getexif()
        return ExifTags(dict(exif), dict(exif.get_ifd(EXIF_IFD)), dict(exif.get_ifd(GPS_IFD)))
    except Exception:  # metadata is a bonus: whatever is wrong with it, the picture is still worth having
        return ExifTags()


def media_info(exif: ExifTags, size: tuple[int, int], image: ImageFile | None = None) -> MediaInfo:
    """All that is known of a picture. ``size`` is upright; ``image`` adds what it carries beside EXIF."""
    xmp = read_xmp(_xmp_packet(image)) if image is not None else {}
    said = xmp_info(xmp)
    iptc = _iptc(image) if image is not None else {}
    place = _position(exif.gps)
    latitude, longitude = (said.latitude, said.longitude) if place == (None, None) else place
    rating = rating_of(exif.main.get(_RATING)) if said.rating is None else said.rating
    return MediaInfo(
        width=size[0],
        height=size[1],
        taken_at=_taken_at(exif, iptc, xmp),
        camera=camera_name(exif.main.get(MAKE), exif.main.get(MODEL)) or said.camera,
        lens=text_of(exif.photo.get(_LENS_MODEL)) or said.lens,
        latitude=latitude,
        longitude=longitude,
        rating=rating,
        description=_description(exif, iptc, xmp, image),
    )


def _taken_at(exif: ExifTags, iptc: Mapping[int, list[str]], xmp: Values) -> str | None:
    dates = [parse_date(exif.photo.get(tag)) for tag in (_DATE_TIME_ORIGINAL, _DATE_TIME_DIGITIZED)]
    dates += [date_of(xmp), date_of_file(xmp), parse_date("T".join([*iptc.get(55, ()), *iptc.get(60, ())]))]
    dates.append(parse_date(exif.main.get(DATE_TIME)))
    return next(filter(None, dates), None)


def _position(gps: Tags) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees, or ``None`` twice."""
    return place_of(_degrees(gps.get(2), gps.get(1), "S"), _degrees(gps.get(4), gps.get(3), "W"))


def _degrees(parts: object, reference: object, negative: str) -> float | None:
    """Degrees, minutes, seconds to decimal degrees; missing or undefined minutes and seconds count as 0."""
    values = [_number(part) for part in parts] if isinstance(parts, (tuple, list)) else [_number(parts)]
    if not values or not math.isfinite(values[0]):
        return None
    degrees: float = sum(value / 60**power for power, value in enumerate(values[:3]) if math.isfinite(value))
    if (text_of(reference) or "").upper().startswith(negative):
        degrees = -degrees
    return degrees


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, ArithmeticError):
        return math.nan


def _xp_text(value: object) -> str | None:
    """Windows' own tags: UTF-16, little-endian, as bytes or as a tuple of their values."""
    if isinstance(value, tuple) and all(isinstance(part, int) and 0 <= part < 256 for part in value):
        value = bytes(value)
    return text_of(value.decode("utf-16-le", "ignore")) if isinstance(value, bytes) else None


def _user_comment(value: object) -> str | None:
    """EXIF 2.3, UserComment: eight bytes name the character code, the text follows."""
    if not isinstance(value, bytes) or len(value) <= 8:
        return None
    code, text = value[:8].rstrip(b"\0 "), value[8:]
    if code == b"UNICODE":
        return text_of(text.decode("utf-16-be" if text[:1] == b"\0" else "utf-16-le", "ignore"))
    return text_of(text) if code in {b"ASCII", b""} else None


def _description(exif: ExifTags, iptc: Mapping[int, list[str]], xmp: Values, image: ImageFile | None) -> str | None:
    """All that people wrote: titles, captions, comments, keywords; each once, one a line."""
    lines = [
        *xmp.get("title", ()),
        *iptc.get(5, ()),
        _xp_text(exif.main.get(_XP_TITLE)),
        *xmp.get("description", ()),
        *iptc.get(120, ()),
        text_of(exif.main.get(IMAGE_DESCRIPTION)),
        _xp_text(exif.main.get(_XP_SUBJECT)),
        _xp_text(exif.main.get(_XP_COMMENT)),
        _user_comment(exif.photo.get(_USER_COMMENT)),
        *_file_comments(image),
        ", ".join(dict.fromkeys([*keywords_of(xmp), *iptc.get(25, ())])),
        _xp_text(exif.main.get(_XP_KEYWORDS)),
        ", ".join(xmp.get("people", ())),
    ]
    return lines_of(line for line in lines if line and not _BOILERPLATE.fullmatch(line[:200]))


def _file_comments(image: ImageFile | None) -> Iterable[str | None]:
    """Comments that formats hold outside EXIF: JPEG and GIF comments, PNG text."""
    if image is None:
        return []
    return [text_of(image.info.get(name)) for name in ("Title", "Description", "Comment", "comment")]


def _iptc(image: ImageFile) -> dict[int, list[str]]:
    """The texts of IPTC-IIM record 2 by data set number: 5 title, 25 keywords, 55 date, 60 time, 120 caption."""
    from PIL.IptcImagePlugin import getiptcinfo

    try:
        found = getiptcinfo(image) or {}
        return {
            number: [text for text in map(text_of, value if isinstance(value, list) else [value]) if text]
            for (record, number), value in found.items()
            if record == 2 and number in {5, 25, 55, 60, 120}
        }
    except Exception:  # as above: a bonus
        return {}


def _xmp_packet(image: ImageFile) -> bytes | str | None:
    for name in ("xmp", "XML:com.adobe.xmp"):
        packet = image.info.get(name)
        if isinstance(packet, (bytes, str)):
            return packet
    return None
