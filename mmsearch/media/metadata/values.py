"""Single values of metadata, as cameras and programs write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime

MAX_DESCRIPTION = 4_000
"""Characters; what is longer is cut."""


def parse_date(value: object) -> str | None:
    """An EXIF, IPTC or ISO date with time to ISO 8601 without zone; ``None`` for dates that never were."""
    match = re.match(
        r"(\d{4})[:\-./]?(\d{2})[:\-./]?(\d{2})(?:[ T](\d{2}):?(\d{2})(?::?(\d{2}))?)?", text_of(value) or ""
    )
    if not match:
        return None
    try:
        return datetime(*(int(part or 0) for part in match.groups())).isoformat()  # type: ignore[arg-type]
    except ValueError:
        return None


def parse_partial_date(value: object) -> str | None:
    """As `parse_date`; also of a year or a month alone, which XMP allows (ISO 16684-1, 8.2.1.2): its first second."""
    match = re.fullmatch(r"(\d{4})(?:-(\d{2}))?", text_of(value) or "")
    return parse_date(f"{match[1]}-{match[2] or '01'}-01" if match else value)


def camera_name(make: object, model: object) -> str | None:
    """``"Canon"``, ``"Canon EOS R5"`` → ``"Canon EOS R5"``: the make once, not twice."""
    maker, name = text_of(make), text_of(model)
    if not maker or not name:
        return name or maker
    return name if name.lower().split()[0] == maker.lower().split()[0] else f"{maker} {name}"


def place_of(latitude: float | None, longitude: float | None) -> tuple[float | None, float | None]:
    """Both in degrees, or ``None`` twice. Exactly 0°, 0° means a receiver without a fix."""
    if latitude is None or longitude is None or latitude == longitude == 0.0:
        return None, None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # also where one is not a number
        return None, None
    return round(latitude, 7), round(longitude, 7)


def rating_of(value: object) -> int | None:
    """−1 (rejected) to 5 stars, of a number or its text; ``None`` for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return round(number) if math.isfinite(number) and -1 <= round(number) <= 5 else None


def text_of(value: object) -> str | None:
    """A tag's text without padding, or ``None`` where nothing readable is left."""
    if isinstance(value, bytes):
        value = decode(value)
    if not isinstance(value, str):
        return None
    value = "".join(char for char in value.split("\0", 1)[0] if char.isprintable() or char in "\n\t").strip()
    return value or None


def decode(data: bytes) -> str:
    """UTF-8 where it is valid, Latin-1 otherwise."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def lines_of(texts: Iterable[str | None]) -> str | None:
    """Each text once, one a line, at most `MAX_DESCRIPTION` characters."""
    return "\n".join(dict.fromkeys(text for text in texts if text))[:MAX_DESCRIPTION].strip() or None
