"""The JSON that Google Takeout puts beside each photo of a Google Photos library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mmsearch.core.types import MediaInfo
from mmsearch.media.metadata.values import lines_of, place_of, text_of

_OWN = {"photoTakenTime", "creationTime", "geoData", "googlePhotosOrigin", "people"}
"""Any of them tells the JSON of Takeout from that of others."""


def read_takeout(data: bytes) -> MediaInfo | None:
    """What it says of the photo; ``None`` where it is no JSON of Takeout.

    Its date is a moment, given in UTC: here in the time zone of this machine, as the photo's own is not known.
    A place of 0°, 0° is what Takeout writes where none is known.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not _OWN & found.keys():
        return None
    places = (_place(found.get(name)) for name in ("geoData", "geoDataExif"))
    latitude, longitude = next((place for place in places if place != (None, None)), (None, None))
    people = found.get("people")
    names = [_text(one.get("name")) for one in people if isinstance(one, dict)] if isinstance(people, list) else []
    return MediaInfo(
        taken_at=_moment(found.get("photoTakenTime")),
        latitude=latitude,
        longitude=longitude,
        description=lines_of([_text(found.get("description")), ", ".join(filter(None, names))]),
    )


def _text(value: object) -> str | None:
    """Without halves of characters, which JSON can name and no file can hold."""
    return text_of(value.encode("utf-8", "ignore").decode()) if isinstance(value, str) else None


def _moment(value: object) -> str | None:
    """Seconds since 1970, as text, in ``timestamp``."""
    try:
        seconds = int(value["timestamp"])  # type: ignore[index]
        return datetime.fromtimestamp(seconds).isoformat()
    except (ArithmeticError, KeyError, OSError, TypeError, ValueError):
        return None


def _place(value: object) -> tuple[float | None, float | None]:
    if not isinstance(value, Mapping):
        return None, None
    degrees: list[Any] = [value.get(name) for name in ("latitude", "longitude")]
    if not all(isinstance(number, (int, float)) and abs(number) < 1000 for number in degrees):
        return None, None
    return place_of(float(degrees[0]), float(degrees[1]))
