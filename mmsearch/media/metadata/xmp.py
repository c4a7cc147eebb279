"""XMP packets (ISO 16684-1), as they stand in pictures and in sidecars of darktable, digiKam, Lightroom and others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any
from xml.etree import ElementTree

from mmsearch.core.types import MediaInfo
from mmsearch.media.metadata.values import (
    camera_name,
    lines_of,
    parse_partial_date,
    place_of,
    rating_of,
    text_of,
)

MAX_XMP_BYTES = 4_000_000
MAX_ELEMENTS = 100_000
"""A packet with more is none: none that a program writes comes near."""

Values = dict[str, list[str]]
"""Texts of a packet by the name of the property without namespace (``description``, ``subject`` …)."""

_ANYWHERE = {"description", "title", "subject", "DateTimeOriginal", "DateCreated", "CreateDate"}
"""Properties that count in whatever namespace."""
_EXIF, _TIFF, _XMP = (
    "{http://ns.adobe.com/exif/1.0/}",
    "{http://ns.adobe.com/tiff/1.0/}",
    "{http://ns.adobe.com/xap/1.0/}",
)
_REGIONS = "{http://www.metadataworkinggroup.com/schemas/regions/}"
_NAMESPACED = {
    **{_EXIF + name: name for name in ("GPSLatitude", "GPSLongitude")},
    **{_TIFF + name: name for name in ("Make", "Model")},
    _XMP + "Rating": "Rating",
    "{http://cipa.jp/exif/1.0/}LensModel": "LensModel",
    "{http://ns.adobe.com/exif/1.0/aux/}Lens": "LensModel",
    "{http://ns.adobe.com/lightroom/1.0/}hierarchicalSubject": "hierarchicalSubject",
    "{http://www.digikam.org/ns/1.0/}TagsList": "hierarchicalSubject",
    "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}PersonInImage": "people",
    "{http://ns.microsoft.com/photo/1.2/t/Region#}PersonDisplayName": "people",
    **{
        f"{{http://ns.google.com/photos/1.0/{room}/}}{name}": "motion"
        for room, name in (("camera", "MotionPhoto"), ("camera", "MicroVideo"))
    },
}


def read_xmp(packet: bytes | str | None) -> Values:
    """The texts of an XMP packet; nothing where there is none, or it cannot be read.

    Anything with a document type is refused: that is the only way for XML to define entities, so none can
    be expanded here. Language alternatives give their default text, else the first.
    """
    if not packet or len(packet) > MAX_XMP_BYTES:
        return {}
    text = packet if isinstance(packet, str) else _decoded(packet)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return {}
    for name in ("xmpmeta", "RDF"):
        start = re.search(rf"<((?:[\w.-]+:)?{name})\b", text)
        end = text.rfind(f"</{start[1]}") if start else -1
        if start and end > start.start() and ">" in text[end:]:
            return _parsed(text[start.start() : text.index(">", end) + 1])
    return {}


_WIDE = (({b"\xfe\xff", b"\xff\xfe"}, "utf-16"), ({b"<\0"}, "utf-16-le"), ({b"\0<"}, "utf-16-be"))


def _decoded(packet: bytes) -> str:
    for beginnings, encoding in _WIDE:
        if packet[:2] in beginnings:
            return packet.decode(encoding, "ignore")
    try:
        return packet.strip(b"\0").decode("utf-8-sig")
    except UnicodeDecodeError:
        return packet.decode("cp1252", "replace")


def _parsed(text: str) -> Values:
    """In pieces, so that a packet that is all elements is given up before it fills the memory."""
    parser: Any = ElementTree.XMLPullParser(events=("start",))
    elements: list[ElementTree.Element] = []
    try:
        for place in range(0, len(text), 1 << 16):
            parser.feed(text[place : place + (1 << 16)])
            elements += (element for _, element in parser.read_events())
            if len(elements) > MAX_ELEMENTS:
                return {}
        parser.close()
    except (ElementTree.ParseError, ValueError, RecursionError):
        return {}
    return _values(elements)


def _values(elements: Iterable[ElementTree.Element]) -> Values:
    values: Values = {}
    for element in elements:
        for name, value in element.attrib.items():
            _keep(values, name, [value])
        if _key(element.tag):
            _keep(values, element.tag, _texts(element))
        _keep_people(values, element)
    return values


def _texts(element: ElementTree.Element) -> Iterator[str | None]:
    items = [item for item in element.iter() if _local(item.tag) == "li"]
    spoken = [item for item in items if any(_local(name) == "lang" for name in item.attrib)]
    if spoken:
        default = (item for item in spoken if "x-default" in item.attrib.values())
        items = [next(default, spoken[0])]
    return (item.text for item in items or [element])


def _keep_people(values: Values, element: ElementTree.Element) -> None:
    """The name of a face (Metadata Working Group, Guidelines 2.0, 5.9); regions of another type are no people."""
    found = {**element.attrib, **{child.tag: child.text or "" for child in element}}
    name, kind = found.get(_REGIONS + "Name"), found.get(_REGIONS + "Type", "Face")
    if name and kind.strip().lower() == "face":
        _keep(values, "people", [name], key="people")


def _keep(values: Values, name: str, texts: Iterable[str | None], key: str | None = None) -> None:
    key = key or _key(name)
    if key is not None:
        known = values.setdefault(key, [])
        known += [text for text in map(text_of, texts) if text and text not in known]


def _key(name: str) -> str | None:
    return _NAMESPACED.get(name) or (_local(name) if _local(name) in _ANYWHERE else None)


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


# What it says


def date_of(xmp: Values) -> str | None:
    """When the picture was taken, as far as someone says just that."""
    return _first_date(xmp, "DateTimeOriginal", "DateCreated")


def date_of_file(xmp: Values) -> str | None:
    """When it was made digital: of a scan, long after it was taken."""
    return _first_date(xmp, "CreateDate")


def _first_date(xmp: Values, *names: str) -> str | None:
    return next(filter(None, map(parse_partial_date, chain(*(xmp.get(name, ()) for name in names)))), None)


def position_of(xmp: Values) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees, or ``None`` twice."""
    latitude, longitude = (next(iter(xmp.get(name, ())), "") for name in ("GPSLatitude", "GPSLongitude"))
    return place_of(_degrees(latitude), _degrees(longitude))


def _degrees(text: str) -> float | None:
    """``46,30.5N``, ``46,30,30S`` (XMP Specification part 2, GPSCoordinate), or plain degrees."""
    match = re.fullmatch(r"\s*([+-]?[\d.]+)(?:,([\d.]+))?(?:,([\d.]+))?\s*([NSEWnsew]?)\s*", text)
    if not match:
        return None
    try:
        degrees, minutes, seconds = (float(part or 0) for part in match.groups()[:3])
    except ValueError:
        return None
    size = abs(degrees) + minutes / 60 + seconds / 3600
    return -size if degrees < 0 or match[4].upper() in {"S", "W"} else size


def keywords_of(xmp: Values) -> list[str]:
    """Plain keywords, then the steps of hierarchical ones (``Places|Norway|Bergen``) that are not among them."""
    steps = (re.split(r"[|/]", path) for path in xmp.get("hierarchicalSubject", ()))
    return list(dict.fromkeys(filter(None, map(text_of, chain(xmp.get("subject", ()), *steps)))))


def xmp_info(xmp: Values) -> MediaInfo:
    """All that a packet says of a picture. Its description has a line each for title, text, keywords and people."""
    latitude, longitude = position_of(xmp)
    lines = [
        *xmp.get("title", ()),
        *xmp.get("description", ()),
        ", ".join(keywords_of(xmp)),
        ", ".join(xmp.get("people", ())),
    ]
    return MediaInfo(
        taken_at=date_of(xmp),
        camera=camera_name(*(next(iter(xmp.get(name, ())), None) for name in ("Make", "Model"))),
        lens=next(iter(xmp.get("LensModel", ())), None),
        latitude=latitude,
        longitude=longitude,
        rating=rating_of(next(iter(xmp.get("Rating", ())), None)),
        description=lines_of(lines),
    )
