"""Filters as SQL over ``documents AS d JOIN contents AS c``: the only place where the one becomes the other.

Values travel as named parameters only. The connection needs `register_functions`.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime

from mmsearch.core.errors import UsageError
from mmsearch.core.letters import has_digit, part_of_name, sought_letters
from mmsearch.core.types import MediaInfo
from mmsearch.filters.paths import fixed_beginning, matches_path, rests_inside
from mmsearch.filters.tree import (
    EARTH_RADIUS_KM,
    And,
    Compare,
    Contains,
    Glob,
    Not,
    OneOf,
    Or,
    Phrase,
    Range,
    Spoken,
    Where,
    Within,
    contains_text,
    distance_or_null,
    nanoseconds_of,
    shortest_iso,
)
from mmsearch.store.local.catalogue.catalogue import BESIDE_COLUMNS
from mmsearch.store.local.catalogue.matching import (
    DATE_SQL,
    FOLDER_SQL,
    WORDS_SQL,
    Condition,
    match_part,
    match_phrase,
)

_COLUMNS = {
    **{field.name: f"c.{field.name}" for field in fields(MediaInfo)},
    **{name: f"COALESCE(d.{name}, c.{name})" for name in BESIDE_COLUMNS},
    **{name: f"d.{name}" for name in ("path", "modality", "size", "mtime_ns")},
    "pixels": "c.width * c.height",
    "long_side": "max(c.width, c.height)",
}

_FOLDER = "rtrim(d.path, replace(d.path, '/', ''))"
_DERIVED = {"date": DATE_SQL, "folder": FOLDER_SQL, "name": f"substr(d.path, length({_FOLDER}) + 1)"}


def to_condition(where: Where, roots: Callable[[], Sequence[tuple[int, str]]] = tuple) -> Condition:
    """The condition that a document satisfies the tree. ``roots``: ids and absolute paths of those that are folders.

    Raises:
        UsageError: it names a field that documents do not have.
    """
    rendered = _Rendering(roots)
    sql = rendered.sql(where)
    return Condition(sql, rendered.values, _only_excludes(where))


def register_functions(connection: sqlite3.Connection) -> None:
    """Teaches a connection the functions that the conditions call; all deterministic, NULL where an argument is."""
    connection.create_function("mmsearch_distance_km", 4, distance_or_null, deterministic=True)
    connection.create_function("mmsearch_glob", 3, matches_path, deterministic=True)
    connection.create_function("mmsearch_contains", 2, contains_text, deterministic=True)


def _only_excludes(where: Where) -> bool:
    """Whether it does nothing but leave out phrases, and so is taken to hold for most documents."""
    if isinstance(where, And):
        return all(map(_only_excludes, where.parts))
    return isinstance(where, Not) and isinstance(where.part, Phrase)


class _Rendering:
    """One tree on its way to SQL; ``values`` by the names of their parameters."""

    def __init__(self, roots: Callable[[], Sequence[tuple[int, str]]]) -> None:
        self.values: dict[str, object] = {}
        self._roots = roots

    def sql(self, where: Where) -> str:
        """True where the node holds; false or NULL elsewhere."""
        match where:
            case And(parts):
                return _joined(" AND ", [f"({self.sql(part)})" for part in parts]) or "TRUE"
            case Or(parts):
                return _joined(" OR ", [f"({self.sql(part)})" for part in parts]) or "FALSE"
            case Not(OneOf("modality", values)):  # a video in which somebody speaks is still one
                return f"d.modality NOT IN ({', '.join(map(self._add, values))})"
            case Not(part):
                return f"({self.sql(part)}) IS NOT TRUE"
            case Compare("date", operator, datetime() as moment):
                return self._dated(operator, moment)
            case Compare(field, operator, value):
                return f"{column_of(field)} {operator} {self._add(value)}"
            case Range(field, low, high):
                return f"{column_of(field)} BETWEEN {self._add(low)} AND {self._add(high)}"
            case OneOf("modality", values) if "speech" in values:
                said = "d.content_id IN (SELECT w.content_id FROM spoken p JOIN segments w ON w.id = p.segment_id)"
                return f"d.modality IN ({', '.join(map(self._add, values))}) OR {said}"
            case OneOf(field, values):
                return f"{column_of(field)} IN ({', '.join(map(self._add, values))})"
            case Contains(field, text):
                return f"mmsearch_contains({column_of(field)}, {self._add(text)})"
            case Glob():
                return " OR ".join(f"({part})" for part in self._globs(where)) or "FALSE"
            case Within():
                return " AND ".join(self._within(where))
            case Spoken(said, language):
                place = "spoken p JOIN segments w ON w.id = p.segment_id WHERE w.content_id = c.id"
                tests = [f"p.language = {self._add(language)}"] if language is not None else []
                if said is not None:
                    found = f"SELECT rowid FROM segment_words WHERE segment_words MATCH {self._add(match_phrase(said))}"
                    tests.append(f"w.id IN ({found})")
                return f"EXISTS (SELECT 1 FROM {place}{''.join(f' AND {part}' for part in tests)})"
            case Phrase(words):
                letters, name = sought_letters(words), part_of_name(words) if has_digit(words) else None
                inside = ["" if each is None else match_part(each) for each in (letters, name)]
                return WORDS_SQL.format(*map(self._add, [match_phrase(words), *inside]))
        raise TypeError(f"{type(where).__name__} is no node of a filter")

    def _add(self, value: object) -> str:
        """The placeholder under which a value travels."""
        name = f"where_{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def _dated(self, operator: str, moment: datetime) -> str:
        nanoseconds = nanoseconds_of(moment)
        # Beyond 64 bits (the years before 1677 and after 2262) only the order matters, and a float keeps it.
        stamp = nanoseconds if abs(nanoseconds) < 2**63 else float(nanoseconds)
        date = _COLUMNS["taken_at"]
        taken = f"{date} {operator} {self._add(shortest_iso(moment))}"
        return f"{taken} OR ({date} IS NULL AND d.mtime_ns {operator} {self._add(stamp)})"

    def _globs(self, glob: Glob) -> Iterator[str]:
        """Any of its paths matches: of the others, what is left of the pattern inside of each root."""
        if "path" in glob.of:
            yield self._matching(glob)
        others = [each for each in glob.of if each != "path"]
        rests = set()
        for number, place in self._roots() if others else ():
            names = [name for name in place.replace("\\", "/").split("/") if name]
            for each in others:
                folder = names if each == "absolute" else names[-1:]
                for rest in rests_inside(glob.names, folder, ignore_case=glob.ignore_case, below=glob.below):
                    if "path" not in glob.of or rest != glob.names:
                        rests.add((number, rest))
        for number, rest in sorted(rests):
            inside = f" AND {self._matching(replace(glob, names=rest))}" if rest else ""
            yield f"d.root_id = {number:d}{inside}"

    def _matching(self, glob: Glob) -> str:
        """The path matches; a range over its fixed beginning lets an index on paths help."""
        beginning = "" if glob.ignore_case else fixed_beginning(glob.names)
        parts = []
        if beginning:
            end = beginning[:-1] + chr(ord(beginning[-1]) + 1)
            parts.append(f"d.path >= {self._add(beginning)} AND d.path < {self._add(end)}")
        is_all_below = bool(beginning) and glob.names[-1] == "**" and beginning.count("/") == len(glob.names) - 1
        if not is_all_below:
            parts.append(f"mmsearch_glob({self._add(glob.regex)}, {int(glob.ignore_case)}, d.path)")
        return " AND ".join(parts)

    def _within(self, circle: Within) -> Iterator[str]:
        """Inside a box around the circle, which is cheap, and then inside the circle, which is exact."""
        yield from self._box(circle)
        here = f"{_COLUMNS['latitude']}, {_COLUMNS['longitude']}"
        place = f"{here}, {self._add(circle.latitude)}, {self._add(circle.longitude)}"
        yield f"mmsearch_distance_km({place}) <= {self._add(circle.radius_km)}"

    def _box(self, circle: Within) -> Iterator[str]:
        """Bounds that no point of the circle is outside of (law of sines where a meridian touches it)."""
        margin = 1e-4  # degrees, some ten metres: far more than rounding can take away
        angle = circle.radius_km / EARTH_RADIUS_KM
        south = circle.latitude - math.degrees(angle) - margin
        north = circle.latitude + math.degrees(angle) + margin
        latitude, longitude = _COLUMNS["latitude"], _COLUMNS["longitude"]
        yield f"{latitude} BETWEEN {self._add(south)} AND {self._add(north)}"
        if south <= -90 or north >= 90:
            return  # a pole is inside, so every meridian is
        ratio = math.sin(angle) / math.cos(math.radians(circle.latitude))
        if ratio >= 1:
            return
        width = math.degrees(math.asin(ratio)) + margin
        west, east = circle.longitude - width, circle.longitude + width
        if west >= -180 and east <= 180:
            yield f"{longitude} BETWEEN {self._add(west)} AND {self._add(east)}"
            return
        west, east = (west + 360, east) if west < -180 else (west, east - 360)
        yield f"({longitude} >= {self._add(west)} OR {longitude} <= {self._add(east)})"


def _joined(operator: str, parts: Sequence[str]) -> str:
    """Many parts in halves of halves: SQLite takes a chain for a tree that is as deep as it is long, and refuses it."""
    if len(parts) <= 64:
        return operator.join(parts)
    middle = len(parts) // 2
    return f"({_joined(operator, parts[:middle])}){operator}({_joined(operator, parts[middle:])})"


def column_of(field: str) -> str:
    """A field as an expression over the catalogue; ``date``, ``folder`` and ``name`` among them."""
    if field in _DERIVED:
        return _DERIVED[field]
    if field not in _COLUMNS:
        raise UsageError(f"documents have no field {field}; there are {', '.join(_COLUMNS)}")
    return _COLUMNS[field]
