"""What a picture says of itself: EXIF, GPS, IPTC and XMP to one MediaInfo.

Damaged tags are left out, never fatal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from mmsearch.core.types import MediaInfo

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Tags = Mapping[int, Any]

MAKE, MODEL, ORIENTATION, DATE_TIME, IMAGE_DESCRIPTION = 0x010F, 0x0110, 0x0112, 0x0132, 0x010E
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_DATE_TIME_ORIGINAL, _DATE_TIME_DIGITIZED, _LENS_MODEL, _USER_COMMENT = 0x9003, 0x9004, 0xA434, 0x9286
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS, _XP_SUBJECT = 0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F

MAX_DESCRIPTION = 4_000
"""Characters; what is longer is cut."""
MAX_XMP_BYTES = 4_000_000

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


def exif_of(image: ImageFile) -> ExifTags:
    """The EXIF tags of an opened image, as much of them as can be read."""
    try:
        exif = image.getexif()
        return ExifTags(dict(exif), dict(exif.get_ifd(EXIF_IFD)), dict(exif.get_ifd(GPS_IFD)))
    except Exception:  # metadata is a bonus: whatever is wrong with it, the picture is still worth having
        return ExifTags()


def media_info(exif: ExifTags, size: tuple[int, int], image: ImageFile | None = None) -> MediaInfo:
    """All that is known of a picture. ``size`` is upright; ``image`` adds what it carries beside EXIF."""
    xmp = read_xmp(_xmp_packet(image)) if image is not None else {}
    iptc = _iptc(image) if image is not None else {}
    latitude, longitude = _position(exif.gps)
    return MediaInfo(
        width=size[0],
        height=size[1],
        taken_at=_taken_at(exif, xmp),
        camera=camera_name(exif.main.get(MAKE), exif.main.get(MODEL)),
        lens=_text(exif.photo.get(_LENS_MODEL)),
        latitude=latitude,
        longitude=longitude,
        description=_description(exif, iptc, xmp, image),
    )


def camera_name(make: object, model: object) -> str | None:
    """``"Canon"``, ``"Canon EOS R5"`` → ``"Canon EOS R5"``: the make once, not twice."""
    maker, name = _text(make), _text(model)
    if not maker or not name:
        return name or maker
    return name if name.lower().split()[0] == maker.lower().split()[0] else f"{maker} {name}"


def parse_date(value: object) -> str | None:
    """An EXIF, IPTC or ISO date with time to ISO 8601 without zone; ``None`` for dates that never were."""
    match = re.match(
        r"(\d{4})[:\-./]?(\d{2})[:\-./]?(\d{2})(?:[ T](\d{2}):?(\d{2})(?::?(\d{2}))?)?", _text(value) or ""
    )
    if not match:
        return None
    try:
        return datetime(*(int(part or 0) for part in match.groups())).isoformat()  # type: ignore[arg-type]
    except ValueError:
        return None


def _taken_at(exif: ExifTags, xmp: Mapping[str, list[str]]) -> str | None:
    candidates = [exif.photo.get(_DATE_TIME_ORIGINAL), exif.photo.get(_DATE_TIME_DIGITIZED)]
    for name in ("DateTimeOriginal", "DateCreated", "CreateDate"):
        candidates.extend(xmp.get(name, ()))
    candidates.append(exif.main.get(DATE_TIME))
    return next((date for date in map(parse_date, candidates) if date), None)


def _position(gps: Tags) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees, or ``None`` twice. Exactly 0°, 0° means a receiver without a fix."""
    latitude = _degrees(gps.get(2), gps.get(1), "S", 90.0)
    longitude = _degrees(gps.get(4), gps.get(3), "W", 180.0)
    if latitude is None or longitude is None or latitude == longitude == 0.0:
        return None, None
    return latitude, longitude


def _degrees(parts: object, reference: object, negative: str, limit: float) -> float | None:
    """Degrees, minutes, seconds to decimal degrees; missing or undefined minutes and seconds count as 0."""
    values = [_number(part) for part in parts] if isinstance(parts, (tuple, list)) else [_number(parts)]
    if not values or not math.isfinite(values[0]):
        return None
    degrees = sum(value / 60**power for power, value in enumerate(values[:3]) if math.isfinite(value))
    if (_text(reference) or "").upper().startswith(negative):
        degrees = -degrees
    return round(degrees, 7) if abs(degrees) <= limit else None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, ArithmeticError):
        return math.nan


def _text(value: object) -> str | None:
    """A tag's text without padding, or ``None`` where nothing readable is left."""
    if isinstance(value, bytes):
        value = _decode(value)
    if not isinstance(value, str):
        return None
    value = "".join(char for char in value.split("\0", 1)[0] if char.isprintable() or char in "\n\t").strip()
    return value or None


def _decode(data: bytes) -> str:
    """UTF-8 where it is valid, Latin-1 otherwise."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _xp_text(value: object) -> str | None:
    """Windows' own tags: UTF-16, little-endian, as bytes or as a tuple of their values."""
    if isinstance(value, tuple) and all(isinstance(part, int) and 0 <= part < 256 for part in value):
        value = bytes(value)
    return _text(value.decode("utf-16-le", "ignore")) if isinstance(value, bytes) else None


def _user_comment(value: object) -> str | None:
    """EXIF 2.3, UserComment: eight bytes name the character code, the text follows."""
    if not isinstance(value, bytes) or len(value) <= 8:
        return None
    code, text = value[:8].rstrip(b"\0 "), value[8:]
    if code == b"UNICODE":
        return _text(text.decode("utf-16-be" if text[:1] == b"\0" else "utf-16-le", "ignore"))
    return _text(text) if code in {b"ASCII", b""} else None


def _description(
    exif: ExifTags, iptc: Mapping[int, list[str]], xmp: Mapping[str, list[str]], image: ImageFile | None
) -> str | None:
    """All that people wrote: titles, captions, comments, keywords; each once, one a line."""
    lines = [
        *xmp.get("title", ()),
        *iptc.get(5, ()),
        _xp_text(exif.main.get(_XP_TITLE)),
        *xmp.get("description", ()),
        *iptc.get(120, ()),
        _text(exif.main.get(IMAGE_DESCRIPTION)),
        _xp_text(exif.main.get(_XP_SUBJECT)),
        _xp_text(exif.main.get(_XP_COMMENT)),
        _user_comment(exif.photo.get(_USER_COMMENT)),
        *_file_comments(image),
        ", ".join(dict.fromkeys([*xmp.get("subject", ()), *iptc.get(25, ())])),
        _xp_text(exif.main.get(_XP_KEYWORDS)),
    ]
    kept = dict.fromkeys(line for line in lines if line and not _BOILERPLATE.fullmatch(line[:200]))
    return "\n".join(kept)[:MAX_DESCRIPTION].strip() or None


def _file_comments(image: ImageFile | None) -> Iterable[str | None]:
    """Comments that formats hold outside EXIF: JPEG and GIF comments, PNG text."""
    if image is None:
        return []
    return [_text(image.info.get(name)) for name in ("Title", "Description", "Comment", "comment")]


def _iptc(image: ImageFile) -> dict[int, list[str]]:
    """The texts of IPTC-IIM record 2 by data set number: 5 title, 25 keywords, 120 caption."""
    from PIL.IptcImagePlugin import getiptcinfo

    try:
        found = getiptcinfo(image) or {}
        return {
            number: [text for text in map(_text, value if isinstance(value, list) else [value]) if text]
            for (record, number), value in found.items()
            if record == 2 and number in {5, 25, 120}
        }
    except Exception:  # as above: a bonus
        return {}


def _xmp_packet(image: ImageFile) -> bytes | str | None:
    for name in ("xmp", "XML:com.adobe.xmp"):
        packet = image.info.get(name)
        if isinstance(packet, (bytes, str)):
            return packet
    return None


def read_xmp(packet: bytes | str | None) -> dict[str, list[str]]:
    """The texts of an XMP packet by local name (``description``, ``title``, ``subject``, dates …).

    Anything with a document type is refused: that is the only way for XML to define entities, so none can
    be expanded here. Language alternatives give their first text.
    """
    if not packet or len(packet) > MAX_XMP_BYTES:
        return {}
    text = packet if isinstance(packet, str) else _xmp_text(packet)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return {}
    start, end = text.find("<x:xmpmeta"), text.rfind("</x:xmpmeta>")
    if start < 0:
        start, end = text.find("<rdf:RDF"), text.rfind("</rdf:RDF>")
    if start < 0 or end < start:
        return {}
    try:
        root = ElementTree.fromstring(text[start : text.index(">", end) + 1])
    except (ElementTree.ParseError, ValueError, RecursionError):
        return {}
    return _xmp_values(root)


def _xmp_text(packet: bytes) -> str:
    packet = packet.rstrip(b"\0")
    if packet[:2] in {b"\xfe\xff", b"\xff\xfe"}:
        return packet.decode("utf-16", "ignore")
    return packet.decode("utf-8", "replace")


_XMP_NAMES = {"description", "title", "subject", "DateTimeOriginal", "DateCreated", "CreateDate"}


def _xmp_values(root: ElementTree.Element) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for element in root.iter():
        for name, value in element.attrib.items():
            _keep(values, name, [value])
        if _local(element.tag) in _XMP_NAMES:
            items = [item for item in element.iter() if _local(item.tag) == "li"]
            texts = [item.text for item in items] if items else [element.text]
            languages = any("lang" in _local(name) for item in items for name in item.attrib)
            _keep(values, element.tag, texts[:1] if languages else texts)
    return values


def _keep(values: dict[str, list[str]], name: str, texts: Iterable[str | None]) -> None:
    local = _local(name)
    if local in _XMP_NAMES:
        found = [text.strip() for text in texts if text and text.strip()]
        values.setdefault(local, []).extend(text for text in found if text not in values.get(local, []))


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]
