"""What a filter says, as a small expression tree that any store can render or evaluate.

The leaves name fields of a document: ``path``, ``modality``, ``size`` (bytes), ``mtime_ns``, and those of
`mmsearch.core.types.MediaInfo`. Three fields follow from others: ``pixels`` (width × height), ``long_side`` (the larger
of them) and ``date`` (when it was taken, in the camera's local time; without that, the time at which its file was last
changed, in the time zone of this machine).

A leaf is false where the document lacks its field. ``Not`` is the exact complement, so it is true there.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from operator import eq, ge, gt, le, lt
from typing import Any, Literal

from mmsearch.core.errors import UsageError
from mmsearch.core.letters import has_digit, has_tokens, part_of_name, tokens_of
from mmsearch.filters.paths import matches_path, path_regex

Operator = Literal["<", "<=", "=", ">=", ">"]
PathField = Literal["path", "named", "absolute"]
_COMPARED: Mapping[str, Any] = {"<": lt, "<=": le, "=": eq, ">=": ge, ">": gt}
MAX_NUMBER = 1e18
"""No size, duration or radius above this is accepted; none exists."""
EARTH_RADIUS_KM = 6371.0088
"""Mean radius of the Earth, (2a + b)/3 of WGS 84 (Moritz, Geodetic Reference System 1980, 2000)."""


class Where:
    """A node: yes or no for every document."""


@dataclass(frozen=True)
class And(Where):
    """All parts hold; without parts true."""

    parts: tuple[Where, ...]


@dataclass(frozen=True)
class Or(Where):
    """At least one part holds; without parts false."""

    parts: tuple[Where, ...]


@dataclass(frozen=True)
class Not(Where):
    """The part does not hold, or the document does not say."""

    part: Where


@dataclass(frozen=True)
class Compare(Where):
    """A field against a value of its type; ``date`` against a `datetime` without zone, in whole seconds."""

    field: str
    operator: Operator
    value: float | str | datetime

    def __post_init__(self) -> None:
        if self.operator not in _COMPARED:
            raise UsageError(f'unknown comparison "{self.operator}"; expected one of {" ".join(_COMPARED)}')
        if isinstance(self.value, datetime) and (self.value.tzinfo is not None or self.value.microsecond):
            raise UsageError(f"the moment is {self.value.isoformat()}; expected whole seconds without a time zone")
        if isinstance(self.value, datetime) != (self.field == "date"):
            raise UsageError(f"{self.field} is compared with {self.value!r}; a date, and nothing else, with a datetime")


@dataclass(frozen=True)
class Range(Where):
    """A field from ``low`` up to ``high``, both included."""

    field: str
    low: float
    high: float


@dataclass(frozen=True)
class OneOf(Where):
    """A field is one of some values."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Contains(Where):
    """A text contains another, upper and lower case not distinguished, both in Unicode form NFC."""

    field: str
    text: str


@dataclass(frozen=True)
class Glob(Where):
    """The whole path, in Unicode form NFC, matches patterns of its names, in order.

    In a name ``*`` is any run of characters, ``?`` one; a backslash makes the next character stand for itself. The
    name ``**`` is any number of folders, at the end everything below. With ``below``, what lies below a folder that
    matches does too. ``of``: which path, any of these: ``path``, that in its root; ``named``, with the name of the root
    itself before it; ``absolute``, without the first slash. An imported row has the first alone.
    """

    names: tuple[str, ...]
    ignore_case: bool = False
    below: bool = False
    of: tuple[PathField, ...] = ("path",)

    @property
    def regex(self) -> str:
        """The same as a regular expression for the whole path."""
        return path_regex(list(self.names), below=self.below)


@dataclass(frozen=True)
class Within(Where):
    """Taken at most ``radius_km`` from a place in degrees, north and east positive, along the surface of the Earth."""

    latitude: float
    longitude: float
    radius_km: float

    def __post_init__(self) -> None:
        if not (abs(self.latitude) <= 90 and abs(self.longitude) <= 180):
            raise UsageError(
                f"latitude {self.latitude:g}, longitude {self.longitude:g}; "
                "expected degrees from -90 to 90 and from -180 to 180"
            )
        if not 0 < self.radius_km <= MAX_NUMBER:
            raise UsageError(f"the radius is {self.radius_km:g} km; expected more than 0")


@dataclass(frozen=True)
class Phrase(Where):
    """These words in a row stand in what is written about the document (its path, folder, caption, description or
    text), or were read in its pictures; or they have a digit and are a part of its file's path (see
    `mmsearch.core.letters.part_of_name`). Case and accents do not count.
    """

    words: str


@dataclass(frozen=True)
class Spoken(Where):
    """In some passage of what is said in a video or recording these words stand in a row, in this language (ISO 639-1);
    ``None``: any.
    """

    words: str | None = None
    language: str | None = None


def modalities_named(parts: Iterable[Where]) -> tuple[str, ...]:
    """The modalities that some of these name as wanted, in the order of their first mention."""
    named = (part.values for part in parts if isinstance(part, OneOf) and part.field == "modality")
    return tuple(dict.fromkeys(name for values in named for name in values))


# Evaluation


def holds(where: Where, document: Mapping[str, Any]) -> bool:
    """Whether the tree is true of a document, given as its fields; a missing field is one that nobody knows.

    ``Phrase`` looks at the texts under ``words``, a sequence, and for parts at a ``name``, the path of a file.
    """
    match where:
        case And(parts):
            return all(holds(part, document) for part in parts)
        case Or(parts):
            return any(holds(part, document) for part in parts)
        case Not(part):
            return not holds(part, document)
        case Compare("date", operator, datetime() as moment):
            return bool(_COMPARED[operator](*_dates(document, moment)))
        case Compare(field, operator, wanted):
            value = value_of(document, field)
            return value is not None and bool(_COMPARED[operator](value, wanted))
        case Range(field, low, high):
            value = value_of(document, field)
            return value is not None and low <= value <= high
        case OneOf(field, values):
            return value_of(document, field) in values
        case Contains(field, text):
            return bool(contains_text(value_of(document, field), text))
        case Glob():
            return any(matches_path(where.regex, int(where.ignore_case), document.get(each)) for each in where.of)
        case Within(latitude, longitude, radius_km):
            distance = distance_or_null(document.get("latitude"), document.get("longitude"), latitude, longitude)
            return distance is not None and distance <= radius_km
        case Spoken(said, language):
            return any(
                (said is None or has_tokens(tokens_of(text), tokens_of(said))) and (language is None or own == language)
                for text, own in document.get("spoken", ())
            )
        case Phrase(words):
            return _has_phrase(document, words)
    raise TypeError(f"{type(where).__name__} is no node of a filter")


def value_of(document: Mapping[str, Any], field: str) -> Any:
    """A field of a document, ``pixels`` and ``long_side`` among them; ``None`` where it is unknown."""
    if field not in ("pixels", "long_side"):
        return document.get(field)
    width, height = document.get("width"), document.get("height")
    if width is None or height is None:
        return None
    return width * height if field == "pixels" else max(width, height)


def shortest_iso(moment: datetime) -> str:
    """ISO 8601 to the day, minute or second, whichever is enough: ``2021-07-03``, ``2021-07-03T12:30``.

    Texts of one form sort as their dates do, and a shorter text sorts before those that it begins; so the shortest
    form is also right against dates that are known only to the day.
    """
    text = moment.isoformat(timespec="seconds")
    return text.removesuffix(":00").removesuffix("T00:00")


def nanoseconds_of(moment: datetime) -> int:
    """Of a moment in the local time zone, since 1970 in UTC. Years for which no zone is known count as in UTC."""
    try:
        seconds = int(moment.timestamp())
    except (OverflowError, ValueError, OSError):
        seconds = (moment - datetime(1970, 1, 1)) // timedelta(seconds=1)
    return seconds * 10**9


def _dates(document: Mapping[str, Any], moment: datetime) -> tuple[Any, Any]:
    """The date of a document and a moment, in the form in which they compare."""
    taken = document.get("taken_at")
    return (document["mtime_ns"], nanoseconds_of(moment)) if taken is None else (taken, shortest_iso(moment))


@lru_cache(maxsize=4096)
def contains_text(text: str | None, part: str) -> bool | None:
    """Does the text contain the part, whatever the case? ``None`` for ``None``."""
    return None if text is None else _folded(part) in _folded(text)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _has_phrase(document: Mapping[str, Any], phrase: str) -> bool:
    wanted, part = tokens_of(phrase), part_of_name(phrase) if has_digit(phrase) else None
    if part is not None and part in " ".join(tokens_of(document.get("name") or "")):
        return True
    return any(has_tokens(tokens_of(text), wanted) for text in document.get("words", ()))


def distance_km(latitude_a: float, longitude_a: float, latitude_b: float, longitude_b: float) -> float:
    """Great-circle distance in km between two places in degrees, on a sphere of ``EARTH_RADIUS_KM``.

    Haversine formula (Sinnott, Virtues of the Haversine, Sky and Telescope 68, 1984); it differs from the
    distance on the ellipsoid by up to 0.6 %.
    """
    phi_a, phi_b = math.radians(latitude_a), math.radians(latitude_b)
    half_phi = (phi_b - phi_a) / 2
    half_lambda = math.radians(longitude_b - longitude_a) / 2
    h = math.sin(half_phi) ** 2 + math.cos(phi_a) * math.cos(phi_b) * math.sin(half_lambda) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, h)))


def distance_or_null(*degrees: float | None) -> float | None:
    """`distance_km`; ``None`` where a coordinate is."""
    a, b, c, d = degrees
    return None if a is None or b is None or c is None or d is None else distance_km(a, b, c, d)
