"""The keys of the query language: what each is for, how its value is read, and how it is written.

Adding a filter to the language is a type in ``filters`` and an entry in ``KEYS``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import cast

from mmsearch.core.errors import UsageError
from mmsearch.core.types import MODALITIES, Modality
from mmsearch.filters import (
    After,
    Before,
    CameraFilter,
    Comparison,
    DurationFilter,
    Filter,
    FolderFilter,
    LensFilter,
    NearFilter,
    PathFilter,
    SizeFilter,
    TypeFilter,
)
from mmsearch.filters.kinds import shortest_iso
from mmsearch.filters.paths import pattern_characters
from mmsearch.filters.sizes import Measure, Operator


class BadValueError(UsageError):
    """What is wrong with a value, and at which of its characters; the reader of the query adds the place."""

    def __init__(self, problem: str, offset: int = 0) -> None:
        self.offset = offset
        super().__init__(problem)


@dataclass(frozen=True)
class Value:
    """The value of a filter: its characters, whether a backslash made each ordinary, where each stands."""

    characters: tuple[tuple[str, bool, int], ...]

    @property
    def text(self) -> str:
        """The value without quotes and escapes."""
        return "".join(character for character, _, _ in self.characters)

    def position(self, offset: int, otherwise: int) -> int:
        """Where in the query the value's character at ``offset`` stands; past its end, its last one."""
        if not self.characters:
            return otherwise
        return self.characters[min(offset, len(self.characters) - 1)][2]


@dataclass(frozen=True)
class Key:
    """One key of the language: what it is for, an example, how to read it, and its values if they are few."""

    purpose: str
    example: str
    read: Callable[[Value], Filter]
    choices: tuple[str, ...] = ()


# ---- type and date


def _read_type(value: Value) -> Filter:
    modalities: list[Modality] = []
    offset = 0
    for name in value.text.split(","):
        found = next((modality for modality in MODALITIES if modality == name.strip().lower()), None)
        if found is None:
            problem = f'unknown type "{name}"' if name else "a type is missing here"
            raise BadValueError(f"{problem}; expected {', '.join(MODALITIES)}", offset)
        modalities.append(found)
        offset += len(name) + 1
    return TypeFilter(tuple(modalities))


_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{1,2})(?:-([0-9]{1,2})(?:[T ]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?)?)?")


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


# ---- path and folder


def _pattern(value: Value) -> str:
    """The value as a path pattern, where a backslash remains before what it made ordinary."""
    return "".join(
        "\\" + character if character == "\\" or (is_ordinary and character in "*?") else character
        for character, is_ordinary, _ in value.characters
    )


# ---- numbers with units

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_COMPARISON = re.compile(
    rf"(<=|>=|<|>|=)({_NUMBER})([a-z]*)|({_NUMBER})([a-z]*)\.\.({_NUMBER})([a-z]*)", re.IGNORECASE | re.ASCII
)

_SIZES: dict[str, tuple[Measure, int]] = {
    "mp": ("pixels", 10**6),
    "px": ("long_side", 1),
    "b": ("bytes", 1),
    "kb": ("bytes", 10**3),
    "mb": ("bytes", 10**6),
    "gb": ("bytes", 10**9),
    "tb": ("bytes", 10**12),
    "kib": ("bytes", 2**10),
    "mib": ("bytes", 2**20),
    "gib": ("bytes", 2**30),
}
_SECONDS = {"s": ("seconds", 1), "m": ("seconds", 60), "min": ("seconds", 60), "h": ("seconds", 3600)}
_DISTANCES = {"km": Decimal(1), "m": Decimal("0.001"), "mi": Decimal("1.609344")}


def _comparison(value: Value, units: Mapping[str, tuple[str, int]], example: str) -> tuple[str, Comparison]:
    """What is measured, and the comparison in its base unit."""
    found = _COMPARISON.fullmatch(value.text)
    if not found:
        raise BadValueError(f'"{value.text}" is no comparison; write for instance {example}')
    operator, number, unit, low, low_unit, high, high_unit = found.groups()
    if operator:
        measure, exact = _measured(number, unit, units, found.start(3))
        return measure, Comparison(cast(Operator, operator), exact)
    measure, upper = _measured(high, high_unit, units, found.start(7))
    low_measure, lower = _measured(low, low_unit or high_unit, units, found.start(5))
    if low_measure != measure:
        raise BadValueError(f"{low_unit} and {high_unit} measure different things", found.start(7))
    return measure, Comparison("..", lower, upper)


def _measured(number: str, unit: str, units: Mapping[str, tuple[str, int]], offset: int) -> tuple[str, float]:
    if unit.lower() not in units:
        problem = f'unknown unit "{unit}"' if unit else "a unit is missing here"
        raise BadValueError(f"{problem}; expected one of {', '.join(units)}", offset)
    measure, factor = units[unit.lower()]
    return measure, float(Decimal(number) * factor)


def _read_size(value: Value) -> Filter:
    measure, comparison = _comparison(value, _SIZES, "size:>2mp or size:1mb..5mb")
    return SizeFilter(cast(Measure, measure), comparison)


def _read_duration(value: Value) -> Filter:
    return DurationFilter(_comparison(value, _SECONDS, "duration:>30s or duration:1m..5m")[1])


def _read_near(value: Value) -> Filter:
    parts = value.text.split(",")
    if len(parts) != 3:
        raise BadValueError(f"found {len(parts)} parts; expected latitude,longitude,radius as in near:46.5,7.9,20km")
    degrees: list[float] = []
    offset = 0
    for part in parts[:2]:
        if not re.fullmatch(rf"[+-]?{_NUMBER}", part.strip()):
            raise BadValueError(f'"{part}" is no coordinate; write degrees such as 46.5 or -7.9', offset)
        degrees.append(float(part))
        offset += len(part) + 1
    radius = re.fullmatch(rf"({_NUMBER})([a-z]+)", parts[2].strip(), re.IGNORECASE | re.ASCII)
    if not radius or radius[2].lower() not in _DISTANCES:
        raise BadValueError(f'"{parts[2]}" is no radius; write a number and km, m or mi, such as 20km', offset)
    radius_km = Decimal(radius[1]) * _DISTANCES[radius[2].lower()]
    return NearFilter(degrees[0], degrees[1], float(radius_km))


KEYS: dict[str, Key] = {
    "type": Key("the kind of document, or several kinds", "type:image,video", _read_type, MODALITIES),
    "after": Key("taken at that time or later", "after:2021-07", lambda value: After(_moment(value))),
    "before": Key("taken earlier than that time", "before:2023-06", lambda value: Before(_moment(value))),
    "path": Key("the path below the indexed folder", "path:holiday/*", lambda v: PathFilter(_pattern(v))),
    "folder": Key("anywhere below a folder of that name", "folder:holiday", lambda v: FolderFilter(_pattern(v))),
    "near": Key("taken within a distance of a place", "near:46.5,7.9,20km", _read_near),
    "camera": Key("the camera's name contains this", 'camera:"X100"', lambda value: CameraFilter(value.text)),
    "lens": Key("the lens's name contains this", "lens:35mm", lambda value: LensFilter(value.text)),
    "size": Key("megapixels, longer side in px, or bytes", "size:>2mp", _read_size),
    "duration": Key("how long a video is", "duration:>30s", _read_duration),
}


# ---- writing


def shown_value(one: Filter) -> tuple[str, str]:
    """The key and the value, as the language writes them, of a filter."""
    match one:
        case TypeFilter(modalities):
            return "type", ",".join(modalities)
        case After(moment):
            return "after", shortest_iso(moment)
        case Before(moment):
            return "before", shortest_iso(moment)
        case PathFilter(pattern):
            return "path", _shown_pattern(pattern)
        case FolderFilter(folder):
            return "folder", _shown_pattern(folder)
        case NearFilter(latitude, longitude, radius):
            return "near", f"{_shown(latitude)},{_shown(longitude)},{_shown(radius)}km"
        case CameraFilter(text):
            return "camera", _shown_text(text)
        case LensFilter(text):
            return "lens", _shown_text(text)
        case SizeFilter(measure, comparison):
            return "size", _shown_comparison(comparison, _size_unit(measure, comparison))
        case DurationFilter(comparison):
            return "duration", _shown_comparison(comparison, ("s", 0))
    raise UsageError(f"the query language has no key for {type(one).__name__}")


def _size_unit(measure: Measure, comparison: Comparison) -> tuple[str, int]:
    """The unit in which the number is handy, and its power of ten (only those convert without rounding)."""
    if measure != "bytes":
        return {"pixels": ("mp", 6), "long_side": ("px", 0)}[measure]
    return next(
        (unit, power) for unit, power in (("gb", 9), ("mb", 6), ("kb", 3), ("b", 0))
        if comparison.value >= 10**power or not power
    )  # fmt: skip


def _shown_comparison(comparison: Comparison, unit: tuple[str, int]) -> str:
    name, power = unit
    numbers = [comparison.value] if comparison.upper is None else [comparison.value, comparison.upper]
    shown = [_shown(number, power) + name for number in numbers]
    return "..".join(shown) if comparison.upper is not None else comparison.operator + shown[0]


def _shown(number: float, power: int = 0) -> str:
    """Every digit that tells the number from its neighbours, divided by a power of ten, without exponent."""
    text = format(Decimal(repr(float(number))).scaleb(-power), "f")
    return text.rstrip("0").removesuffix(".") if "." in text else text


def _shown_pattern(pattern: str) -> str:
    return _in_quotes_if_spaced("/".join(_shown_name(name) for name in pattern.split("/")))


def _shown_name(name: str) -> str:
    shown = ""
    for character, is_literal in pattern_characters(name):
        is_special = character in '"\\' or (is_literal and character in "*?")
        shown += "\\" + character if is_special else character
    return shown


def _shown_text(text: str) -> str:
    return _in_quotes_if_spaced(text.replace("\\", "\\\\").replace('"', '\\"'))


def _in_quotes_if_spaced(escaped: str) -> str:
    return f'"{escaped}"' if any(character.isspace() for character in escaped) else escaped
