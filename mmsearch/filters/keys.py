"""The filter keys: for each, what it is for, how its value is read, and what it says of a document.

A new key is a class here and a row in `KEYS`. An installed package brings one as an entry point of the group
``mmsearch.filters``, whose name is the key and whose object the class.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import ClassVar, cast

from mmsearch.core.errors import UsageError
from mmsearch.core.modalities import MODALITIES
from mmsearch.core.registry import Registry
from mmsearch.filters.base import BadValueError, FilterKey, Held, Value
from mmsearch.filters.paths import names_of
from mmsearch.filters.places import Place, find_place
from mmsearch.filters.tree import (
    MAX_NUMBER,
    Compare,
    Contains,
    Glob,
    OneOf,
    Operator,
    PathField,
    Range,
    Spoken,
    Where,
    Within,
)


class Type(FilterKey):
    """Documents of any of these modalities, which are read in any case."""

    meaning, example = "the kind of document, or several kinds", "type:image,video"

    @staticmethod
    def where(value: Value) -> Where:
        """The modality is one of those between commas."""
        names, offset = [], 0
        for name in value.text.split(","):
            if name.strip().lower() not in MODALITIES:
                problem = f'unknown type "{name}"' if name else "a type is missing here"
                raise BadValueError(f"{problem}; expected {', '.join(MODALITIES)}", offset)
            names.append(name.strip().lower())
            offset += len(name) + 1
        return OneOf("modality", tuple(names))

    @staticmethod
    def choices() -> tuple[str, ...]:
        """The modalities."""
        return MODALITIES.names()

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """What kinds there are."""
        wanted = " or ".join(part.strip().lower() for part in value.text.split(","))
        there = ", ".join(f"{count:,} {kind}{'s' * (count > 1)}" for kind, count in held.values("modality", 9))
        return f"there is no {wanted} here: the index holds {there}"


class After(FilterKey):
    """Documents dated at the moment or later: ``after:2021`` is from the first second of 2021 on.

    A moment is a year, month, day, minute or second. What a document's date is: see `mmsearch.filters.tree`.
    """

    meaning, example = "taken at that time or later", "after:2021-07"

    @staticmethod
    def where(value: Value) -> Where:
        """Date ≥ moment."""
        return Compare("date", ">=", _moment(value))

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """The newest date."""
        return f"no file is from {value.text} or later: the newest is from {_days(held)[1]}"


class Before(FilterKey):
    """Documents dated earlier than the moment: ``before:2023-06`` is earlier than the first second of June 2023.

    So `After` and `Before` the same moment share nothing and leave out nothing.
    """

    meaning, example = "taken earlier than that time", "before:2023-06"

    @staticmethod
    def where(value: Value) -> Where:
        """Date < moment."""
        return Compare("date", "<", _moment(value))

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """The oldest date."""
        return f"no file is from before {value.text}: the oldest is from {_days(held)[0]}"


class Path(FilterKey):
    """Documents at or below a path that matches a pattern, upper and lower case distinguished.

    ``*`` is any run of characters within a name, ``?`` one character of a name, ``**`` as a whole name any
    number of folders, also none (at the end: everything below). A backslash before one of these makes it stand for
    itself, any other divides names as ``/`` does; nothing else is special, brackets neither.

    A pattern begins in the indexed folder, or with that folder's own name; without ``/`` before its end it is the name
    of a file or folder anywhere. ``/x`` is ``x`` in the indexed folder itself, or an absolute path, as ``~/x`` and
    ``C:/x`` are. What it leads to may be a file, or a folder, with all that is in it; ``x/`` is a folder.
    """

    meaning, example = "at or below this path in the indexed folder, or an absolute one", "path:holiday/*"

    @staticmethod
    def where(value: Value) -> Where:
        """The path matches."""
        pattern, of = _place(value)
        names = names_of(pattern)
        if "/" not in pattern.removesuffix("/"):
            names = ["**", *names]
        if pattern.endswith("/") and names[-1] != "**":
            names = [*names, "**"]
        elif names[-1] == "*":
            names[-1] = "**"
        return Glob(tuple(names), below=names[-1] != "**", of=of)

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """Folders and files with a like name."""
        if "/" in value.pattern.strip("/"):
            return f"no file lies under {value.text}{_did_you_mean(value.pattern, _folders(held))}"
        names = [*_folders(held), *(file for file, _ in held.values("name", _MANY))]
        return f"no file or folder is called {value.text}{_did_you_mean(value.pattern, names)}"


class Folder(FilterKey):
    """Documents anywhere below a folder of this name, upper and lower case not distinguished.

    Several names (``2021/holiday``) must follow each other; the indexed folder itself counts too. A leading ``/`` ties
    the first to the indexed folder, or begins an absolute path, as ``~/`` does. Wildcards are those of `Path`.
    """

    meaning, example = "anywhere below a folder of that name", "folder:holiday"

    @staticmethod
    def where(value: Value) -> Where:
        """Some run of folders matches."""
        pattern, of = _place(value)
        start = [] if "absolute" in of else ["**"]
        return Glob((*start, *names_of(pattern), "**"), ignore_case=True, of=of)

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """Folders with a like name."""
        return f"no folder is called {value.text}{_did_you_mean(value.pattern, _folders(held))}"


class Near(FilterKey):
    """Documents taken at most so far from a place: latitude, longitude (degrees) and a radius in km, m or mi.

    Where a gazetteer is installed, the name of a place stands for its coordinates (see `find_place`), with countries or
    states after it to say which is meant (``Paris, Texas``); without a radius it is `_AROUND`.
    """

    meaning, example = "taken within a distance of a place, by coordinates or name", "near:46.5,7.9,20km"

    @staticmethod
    def where(value: Value) -> Where:
        """Latitude, longitude and radius with its unit, or a name and perhaps a radius, between commas."""
        place, radius_km = _around(value)
        return Within(place.latitude, place.longitude, radius_km)

    @classmethod
    def understood(cls, name: str, value: Value) -> str | None:
        """Which place a name was taken for."""
        place, radius_km = _around(value)
        if not place.name:
            return None
        others = f", one of {place.others + 1} of that name: add a country for another" if place.others else ""
        spot = f"({place.latitude:.2f}, {place.longitude:.2f})"
        return f"{name}:{value.text} is within {radius_km:g} km of {place} {spot}{others}"

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """How far away the nearest is."""
        if held.span("latitude") is None:
            return "no file says where it was taken"
        place, radius_km = _around(value)
        radii = (r for r in (10, 100, 1000, 5000, 20100) if r > radius_km)
        far = next((r for r in radii if held.count(Within(place.latitude, place.longitude, r))), None)
        more = "" if far is None else f": the nearest was within {far:,} km of there"
        spot = str(place) if place.name else f"{place.latitude:g}, {place.longitude:g}"
        return f"nothing was taken within {radius_km:g} km of {spot}{more}"


class _Named(FilterKey):
    """Documents of which a field that is a text contains the value; case does not matter."""

    field: ClassVar[str]

    @classmethod
    def where(cls, value: Value) -> Where:
        """The field contains it."""
        return Contains(cls.field, value.text)


class _TakenWith(_Named):
    """A field that says what a picture was taken with."""

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """Which ones there are."""
        return _none_called(cls.field, value.text, held)


class Camera(_TakenWith):
    """Documents whose camera (maker and model) contains the text."""

    field, meaning, example = "camera", "the camera's name contains this", 'camera:"X100"'


class Lens(_TakenWith):
    """Documents whose lens contains the text."""

    field, meaning, example = "lens", "the lens's name contains this", "lens:35mm"


class Artist(_Named):
    """Recordings whose artist contains the text."""

    field, meaning, example = "artist", "the artist of a recording contains this", 'artist:"Nina"'


class Album(_Named):
    """Recordings whose album contains the text."""

    field, meaning, example = "album", "the album of a recording contains this", 'album:"Blue"'


class Title(_Named):
    """Recordings whose title contains the text."""

    field, meaning, example = "title", "the title of a recording contains this", "title:overture"


class Said(FilterKey):
    """Moments of videos and recordings in which these words are said, in a row; case and accents do not matter."""

    meaning, example = "these words are said there", 'said:"good morning"'

    @staticmethod
    def where(value: Value) -> Where:
        """Some passage has the words."""
        return Spoken(words=" ".join(value.text.split()))


class Lang(FilterKey):
    """Moments of videos and recordings that are spoken in a language, by its code of two letters (ISO 639-1)."""

    meaning, example = "spoken in that language", "lang:de"

    @staticmethod
    def where(value: Value) -> Where:
        """Some passage is in it."""
        if not re.fullmatch("[A-Za-z]{2,3}", value.text):
            raise BadValueError(f'"{value.text}" is no code of a language; write for instance de, en or zh')
        return Spoken(language=value.text.lower())


class Size(FilterKey):
    """Documents by bytes of the file, pixels of the picture, or pixels of its longer side.

    ``>`` ``>=`` ``<`` ``<=`` ``=`` before a number, or ``a..b`` with both ends; mp (10⁶ pixels), px (the longer side),
    b kb mb gb tb (powers of 1000), kib mib gib (of 1024). A bare number is refused: hardly a file is just that large.
    """

    meaning, example = "megapixels, longer side in px, or bytes", "size:>2mp"

    @staticmethod
    def where(value: Value) -> Where:
        """The measure that the unit names compares so."""
        return compared(value, _SIZES, "size:>2mp or size:1mb..5mb")

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """From which size to which there are files."""
        return _out_of_span(name, value, cls.where(value), held)


class Duration(FilterKey):
    """Videos by length, compared as `Size` is; in s, m or min, h."""

    meaning, example = "how long a video is", "duration:>30s"

    @staticmethod
    def where(value: Value) -> Where:
        """The duration compares so."""
        return compared(value, _SECONDS, "duration:>30s or duration:1m..5m")

    @classmethod
    def unmet(cls, name: str, value: Value, held: Held) -> str:
        """From which length to which there are videos."""
        return _out_of_span(name, value, cls.where(value), held)


class Rating(FilterKey):
    """Documents by stars, 1 to 5, that somebody gave them; 0 where a program wrote that nobody has.

    A number is just that many stars; ``>`` ``>=`` ``<`` ``<=`` and ``a..b`` compare as `Size` does.
    """

    meaning, example = "stars, from XMP or EXIF", "rating:>=4"

    @staticmethod
    def where(value: Value) -> Where:
        """The stars compare so."""
        if re.fullmatch("[0-9]", value.text):
            return Compare("rating", "=", int(value.text))
        if re.search("[a-z]", value.text, re.IGNORECASE):
            raise BadValueError(f'"{value.text}" is no number of stars; write rating:5, rating:>=4 or rating:2..4')
        return compared(value, {"": ("rating", 1)}, "rating:5, rating:>=4 or rating:2..4")


KEYS: Registry[type[FilterKey]] = Registry(
    "mmsearch.filters",
    "filter",
    {
        "type": Type,
        "after": After,
        "before": Before,
        "path": Path,
        "folder": Folder,
        "near": Near,
        "camera": Camera,
        "lens": Lens,
        "title": Title,
        "artist": Artist,
        "album": Album,
        "said": Said,
        "lang": Lang,
        "size": Size,
        "duration": Duration,
        "rating": Rating,
    },
)


def filter_help() -> list[tuple[str, str, str]]:
    """Key, example and meaning of every filter."""
    return [(name, KEYS[name].example, KEYS[name].meaning) for name in KEYS]


# What there is instead

_SHOWN = 5
_MANY = 100_000
_MEASURES = {
    "size": ("size in bytes", 1, "bytes"),
    "pixels": ("size in pixels", 10**6, "mp"),
    "long_side": ("size in pixels", 1, "px"),
    "duration_s": ("duration", 1, "s"),
}


def _days(held: Held) -> tuple[str, str]:
    """The oldest and the newest day."""
    span = held.span("date")
    return ("", "") if span is None else (str(span[0])[:10], str(span[1])[:10])


def _none_called(field: str, wanted: str, held: Held) -> str:
    there = held.values(field, _SHOWN + 1)
    if not there:
        return f"no file says which {field} it was taken with"
    more = ", …" if len(there) > _SHOWN else ""
    return f"no {field} called {wanted} here: {', '.join(value for value, _ in there[:_SHOWN])}{more}"


def _out_of_span(name: str, value: Value, where: Where, held: Held) -> str:
    field = getattr(where, "field", "size")
    span = held.span(field)
    measure, unit, shown = _MEASURES[field]
    if span is None:
        return f"no file says its {measure}"
    low, high = (float(f"{end / unit:.3g}") for end in span)
    return f"no file meets {name}:{value.text}: here they have {low:,g} to {high:,g} {shown}"


def _folders(held: Held) -> list[str]:
    """The names of all folders, most used first."""
    return list(dict.fromkeys(name for path, _ in held.values("folder", _MANY) for name in path.split("/") if name))


def _place(value: Value) -> tuple[str, tuple[PathField, ...]]:
    """A pattern of paths, and the paths that it may be one of."""
    pattern = value.pattern.removeprefix("./")
    if pattern == "~" or pattern.startswith("~/"):
        return re.sub(r"([\\*?])", r"\\\1", pathlib.Path.home().as_posix()) + pattern[1:], ("absolute",)
    if re.match("[A-Za-z]:/", pattern):
        return pattern, ("absolute",)
    return pattern, ("path", "absolute" if pattern.startswith("/") else "named")


def _did_you_mean(pattern: str, names: Sequence[str]) -> str:
    """Names that have the first one in a pattern that none is, or are nearly it; an empty text where there are none."""
    from difflib import get_close_matches  # only where an error is being written anyway

    known = {name.lower(): name for name in reversed(names)}
    parts = [re.sub(r"[\\*?]+", "", part).lower() for part in pattern.split("/")]
    sought = next((part for part in parts if part and part != "~" and known.get(part) not in pattern.split("/")), None)
    if sought is None:
        return ""
    inside = [name for name in known if sought in name][:3]
    near = inside or get_close_matches(sought, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(known[name] for name in near)}?" if near else ""


# Values

_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{1,2})(?:-([0-9]{1,2})(?:[T ]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?)?)?")
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_COMPARISON = re.compile(
    rf"(<=|>=|<|>|=)({_NUMBER})([a-z]*)|({_NUMBER})([a-z]*)\.\.({_NUMBER})([a-z]*)", re.IGNORECASE | re.ASCII
)
Units = Mapping[str, tuple[str, int]]
"""By its name, the field that a unit measures, and how many of the field's own units it is."""
_SIZES: Units = {
    "mp": ("pixels", 10**6),
    "px": ("long_side", 1),
    "b": ("size", 1),
    "kb": ("size", 10**3),
    "mb": ("size", 10**6),
    "gb": ("size", 10**9),
    "tb": ("size", 10**12),
    "kib": ("size", 2**10),
    "mib": ("size", 2**20),
    "gib": ("size", 2**30),
}
_SECONDS: Units = {unit: ("duration_s", factor) for unit, factor in (("s", 1), ("m", 60), ("min", 60), ("h", 3600))}


_DISTANCES = {"km": Decimal(1), "m": Decimal("0.001"), "mi": Decimal("1.609344")}
_AROUND = "20km"


def _around(value: Value) -> tuple[Place, float]:
    """A place, which has no name where it was given by coordinates, and the radius around it in km."""
    parts = value.text.split(",")
    if not re.match(r"\s*[+-]?[.0-9]", parts[0]):
        has_radius = len(parts) > 1 and parts[-1].strip()[:1].isdecimal()
        *parts, radius = parts if has_radius else [*parts, _AROUND]
        radius_km = _radius(radius, len(value.text) - len(radius) if has_radius else 0)
        name, *within = (part.strip() for part in parts)
        return find_place(name, [part for part in within if part]), radius_km
    if len(parts) != 3:
        problem = f"found {len(parts)} parts; expected latitude,longitude,radius as in {Near.example}"
        raise BadValueError(problem)
    degrees: list[float] = []
    offset = 0
    for part in parts[:2]:
        if not re.fullmatch(rf"[+-]?{_NUMBER}", part.strip()):
            raise BadValueError(f'"{part}" is no coordinate; write degrees such as 46.5 or -7.9', offset)
        degrees.append(float(part))
        offset += len(part) + 1
    return Place("", "", "", degrees[0], degrees[1]), _radius(parts[2], offset)


def _radius(written: str, offset: int) -> float:
    """The kilometres of a radius, which stands at ``offset`` in the value."""
    found = re.fullmatch(rf"({_NUMBER})\s*([a-z]+)", written.strip(), re.IGNORECASE | re.ASCII)
    if not found or found[2].lower() not in _DISTANCES:
        raise BadValueError(f'"{written}" is no radius; write a number and km, m or mi, such as 20km', offset)
    return float(Decimal(found[1]) * _DISTANCES[found[2].lower()])


def compared(value: Value, units: Units, example: str) -> Where:
    """A value such as ``>2mp`` or ``1m..5m`` as the comparison of a field.

    Raises:
        UsageError: it is no comparison, or of numbers below 0 or beyond `MAX_NUMBER`.
    """
    found = _COMPARISON.fullmatch(value.text)
    if not found:
        raise BadValueError(f'"{value.text}" is no comparison; write for instance {example}')
    operator, number, unit, low, low_unit, high, high_unit = found.groups()
    if operator:
        field, exact = _measured(number, unit, units, found.start(3))
        return Compare(field, cast(Operator, operator), _in_range(exact))
    field, upper = _measured(high, high_unit, units, found.start(7))
    low_field, lower = _measured(low, low_unit or high_unit, units, found.start(5))
    if low_field != field:
        raise BadValueError(f"{low_unit} and {high_unit} measure different things", found.start(7))
    if _in_range(upper) < _in_range(lower):
        raise UsageError("the range ends below its beginning; write the smaller number first")
    return Range(field, lower, upper)


def _measured(number: str, unit: str, units: Units, offset: int) -> tuple[str, float]:
    """The field, and the number in its own unit."""
    if unit.lower() not in units:
        problem = f'unknown unit "{unit}"' if unit else "a unit is missing here"
        raise BadValueError(f"{problem}; expected one of {', '.join(units)}", offset)
    field, factor = units[unit.lower()]
    return field, float(Decimal(number) * factor)


def _in_range(number: float) -> float:
    if number > MAX_NUMBER:
        raise UsageError(f"{number:g} is out of range; expected 0 to {MAX_NUMBER:g}")
    return number


def _moment(value: Value) -> datetime:
    """The first second of the year, month, day, minute or second that is written."""
    found = _DATE.fullmatch(value.text)
    if not found:
        raise BadValueError(f'"{value.text}" is no date; write 2021, 2021-07, 2021-07-03 or 2021-07-03T12:30 (no zone)')
    year, month, day, hour, minute, second = (None if part is None else int(part) for part in found.groups())
    month, day = 1 if month is None else month, 1 if day is None else day
    try:
        return datetime(year or 0, month, day, hour or 0, minute or 0, second or 0)
    except ValueError as error:
        raise BadValueError(f"there is no date {value.text}: {error}") from error
