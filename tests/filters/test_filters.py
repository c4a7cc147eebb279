"""Filters in a real SQLite database, and in Python, against an oracle that looks at one document at a time."""

from __future__ import annotations

import fnmatch
import math
import random
import sqlite3
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import UsageError
from mmsearch.core.types import MediaInfo
from mmsearch.filters import (
    And,
    Compare,
    Contains,
    Glob,
    Not,
    OneOf,
    Or,
    Phrase,
    Range,
    Where,
    Within,
    filter_help,
    holds,
)
from mmsearch.filters.tree import distance_km
from mmsearch.query.language import parse_query
from mmsearch.store.local.catalogue.database import register_words
from mmsearch.store.local.catalogue.matching import DATE_SQL
from mmsearch.store.local.where import register_functions, to_condition
from tests.support.zones import ZONES, zone

SCHEMA = """
CREATE TABLE contents (id INTEGER PRIMARY KEY, width INTEGER, height INTEGER, duration_s REAL, taken_at TEXT,
    camera TEXT, lens TEXT, latitude REAL, longitude REAL, rating INTEGER, description TEXT) STRICT;
CREATE TABLE documents (id INTEGER PRIMARY KEY, root_id INTEGER NOT NULL, path TEXT NOT NULL,
    modality TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    content_id INTEGER NOT NULL REFERENCES contents (id),
    taken_at TEXT, camera TEXT, lens TEXT, latitude REAL, longitude REAL, rating INTEGER) STRICT;
"""
JOINED = "documents AS d JOIN contents AS c ON c.id = d.content_id"


@dataclass(frozen=True)
class Row:
    path: str = "a.jpg"
    modality: str = "image"
    size: int = 1000
    mtime_ns: int = 0
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    taken_at: str | None = None
    camera: str | None = None
    lens: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    rating: int | None = None


# ---- the slow oracle


def matches(where: Where, row: Row) -> bool:
    match where:
        case Not(part):
            return not matches(part, row)
        case And(parts):
            return False not in [matches(part, row) for part in parts]
        case Or(parts):
            return True in [matches(part, row) for part in parts]
        case OneOf("modality", names):
            return row.modality in names
        case Compare("date", operator, datetime() as moment):
            return date_of(row) >= moment if operator == ">=" else date_of(row) < moment
        case Glob(names, ignore_case, below):
            path = unicodedata.normalize("NFC", row.path)
            patterns = [unicodedata.normalize("NFC", name) for name in names]
            if ignore_case:
                path, patterns = path.lower(), [name.lower() for name in patterns]
            names, parts = [*patterns, "*"] if patterns[-1] == "**" else patterns, path.split("/")
            return any(names_match(names, parts[:n]) for n in range(1 if below else len(parts), len(parts) + 1))
        case Within(latitude, longitude, radius):
            if row.latitude is None or row.longitude is None:
                return False
            return distance_km(row.latitude, row.longitude, latitude, longitude) <= radius
        case Contains(field, text):
            value = getattr(row, field)
            return value is not None and text.casefold() in value.casefold()
        case Range(field, low, high):
            return matches(Compare(field, ">=", low), row) and matches(Compare(field, "<=", high), row)
        case Compare(field, operator, wanted):
            sides = None if row.width is None or row.height is None else (row.width, row.height)
            if field in ("pixels", "long_side"):
                number = None if sides is None else math.prod(sides) if field == "pixels" else max(sides)
            else:
                number = getattr(row, field)
            return number is not None and compares(operator, number, wanted)
    raise AssertionError(where)


def date_of(row: Row) -> datetime:
    if row.taken_at is not None:
        return datetime.fromisoformat(row.taken_at)
    return datetime(1970, 1, 1) + timedelta(seconds=row.mtime_ns // 10**9)


def compares(operator: str, number: float, value: Any) -> bool:
    return {
        "<": number < value,
        "<=": number <= value,
        "=": number == value,
        ">=": number >= value,
        ">": number > value,
    }[operator]


def path_matches(pattern: str, path: str) -> bool:
    pattern, path = (unicodedata.normalize("NFC", each) for each in (pattern.removeprefix("./"), path))
    names, parts = [name for name in pattern.split("/") if name], path.split("/")
    if "/" not in pattern.removesuffix("/"):
        names = ["**", *names]
    if pattern.endswith("/"):
        names = [*names, "**"]
    if names[-1] == "**":
        names = [*names, "*"]
    return any(names_match(names, parts[:count]) for count in range(1, len(parts) + 1))


def names_match(patterns: list[str], names: list[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(names_match(patterns[1:], names[skip:]) for skip in range(len(names) + 1))
    return bool(names) and name_matches(patterns[0], names[0]) and names_match(patterns[1:], names[1:])


def name_matches(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(name_matches(pattern[1:], name[skip:]) for skip in range(len(name) + 1))
    if pattern[0] == "\\" and len(pattern) > 1:
        return name[:1] == pattern[1] and name_matches(pattern[2:], name[1:])
    return bool(name) and pattern[0] in ("?", name[0]) and name_matches(pattern[1:], name[1:])


# ---- the database


@pytest.fixture(scope="module", autouse=True)
def utc() -> Iterator[None]:
    """The oracle knows no zones."""
    with zone("UTC"):
        yield


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA)
    register_functions(connection)
    yield connection
    connection.close()


def described(row: Row) -> list[Any]:
    return [row.taken_at, row.camera, row.lens, row.latitude, row.longitude, row.rating]


def beside_and_own(row: Row) -> tuple[list[Any], list[Any]]:
    """What is written beside a file counts before what it says itself, which is something else here."""
    others = ["1999-01-01T00:00:00", "other", "other", 12.0, 13.0, 3]
    beside = described(row)
    return beside, [None if value is None else other for value, other in zip(beside, others, strict=True)]


def fill(connection: sqlite3.Connection, rows: list[Row]) -> None:
    connection.execute("DELETE FROM documents")
    connection.execute("DELETE FROM contents")
    connection.executemany(
        "INSERT INTO contents VALUES (?,?,?,?,?,?,?,?,?,?,NULL)",
        [
            (i, r.width, r.height, r.duration_s, *(beside_and_own(r)[1] if i % 2 else described(r)))
            for i, r in enumerate(rows)
        ],
    )
    connection.executemany(
        "INSERT INTO documents VALUES (?,1,?,?,?,?,?,?,?,?,?,?,?)",
        [
            (i, r.path, r.modality, r.size, r.mtime_ns, i, *(beside_and_own(r)[0] if i % 2 else [None] * 6))
            for i, r in enumerate(rows)
        ],
    )


def found(connection: sqlite3.Connection, where: Where | str) -> list[int]:
    condition = to_condition(read(where))
    query = f"SELECT d.id FROM {JOINED} WHERE {condition.sql} ORDER BY d.id"
    return [row[0] for row in connection.execute(query, dict(condition.parameters))]


def read(where: Where | str) -> Where:
    return And(parse_query(where).filters) if isinstance(where, str) else where


def path_filter(pattern: str) -> Where:
    return written(f"path:{quoted(pattern)}")


def written(query: str) -> Where:
    (where,) = parse_query(query).filters
    return where


def quoted(pattern: str) -> str:
    """As the language writes a pattern."""
    shown, at = "", 0
    while at < len(pattern):
        if pattern[at] == "\\" and pattern[at + 1 : at + 2] in ("*", "?"):
            shown, at = shown + "\\" + pattern[at + 1], at + 2
        elif pattern[at] == "\\" and pattern[at + 1 : at + 2] == "\\":
            shown, at = shown + "\\\\", at + 2
        else:
            shown, at = shown + ("\\" if pattern[at] in '\\"' else "") + pattern[at], at + 1
    return f'"{shown}"'


def assert_as_brute_force(connection: sqlite3.Connection, rows: list[Row], where: Where) -> None:
    fill(connection, rows)
    expected = [i for i, row in enumerate(rows) if matches(where, row)]
    assert found(connection, where) == expected
    assert [i for i, row in enumerate(rows) if holds(where, asdict(row))] == expected


# ---- random documents and filters that often meet


def nullable(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


names = st.text("abK*?[]\\. é" + "e\u0301" + "\u212a\n%_", min_size=1, max_size=5)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
pattern_names = st.text(st.sampled_from("abK*?[]. é%_"), min_size=1, max_size=5) | st.sampled_from(
    ["**", "*", "a*", "*b", "?", "\\*", "\\**", "*a*b", "\\?a", "a\\", "\\\\*", "K*", "***"]
)
slash = st.sampled_from(["", "/"])
patterns = st.tuples(slash, st.lists(pattern_names, min_size=1, max_size=4).map("/".join), slash).map("".join)
turning_points = [
    datetime(1, 1, 1),
    datetime(1970, 1, 1),
    datetime(2021, 7, 3),
    datetime(2021, 7, 3, 12, 30),
    datetime(2021, 7, 3, 12, 30, 1),
    datetime(2262, 4, 12),
    datetime(9999, 12, 31, 23, 59, 59),
]
moments = st.sampled_from(turning_points) | st.datetimes(datetime(2020, 1, 1), datetime(2022, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0)
)
epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
mtimes = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3).flatmap(
    lambda around: moments.filter(lambda m: 1700 < m.year < 2200).map(
        lambda m: (m.replace(tzinfo=timezone.utc) - epoch) // timedelta(seconds=1) * 10**9 + around
    )
)
sides = st.sampled_from([1, 2, 1000, 1999, 2000, 2001])
latitudes = st.sampled_from([-90.0, -89.999, 0.0, 46.5, 89.9, 90.0]) | st.floats(-90, 90)
longitudes = st.sampled_from([-180.0, -179.99, 0.0, 7.9, 179.99, 180.0]) | st.floats(-180, 180)
makers = st.sampled_from(["FUJIFILM X100V", "Canon EOS 5D", "straße", "STRASSE", "%", "x_1"])
rows = st.builds(
    Row,
    path=paths,
    modality=st.sampled_from(["image", "video", "text"]),
    size=st.integers(0, 5) | st.sampled_from([999, 1000, 1001]),
    mtime_ns=mtimes,
    width=nullable(sides),
    height=nullable(sides),
    duration_s=nullable(st.sampled_from([0.0, 1.5, 60.0, 60.1])),
    taken_at=nullable(moments.map(lambda moment: moment.isoformat(timespec="seconds"))),
    camera=nullable(makers),
    lens=nullable(makers),
    latitude=nullable(latitudes),
    longitude=nullable(longitudes),
    rating=nullable(st.integers(-1, 5)),
)
texts = st.sampled_from(["x100", "canon", "S", "STRASSE", "ß", "%", "_", "X100V"])
measures = st.sampled_from(["size", "pixels", "long_side", "duration_s", "width", "mtime_ns", "rating"])
leaves = st.one_of(
    st.lists(st.sampled_from(["image", "video", "text"]), min_size=1, max_size=3).map(
        lambda names: OneOf("modality", tuple(names))
    ),
    st.builds(Compare, st.just("date"), st.sampled_from([">=", "<"]), moments),
    st.builds(path_filter, patterns.filter(lambda p: p.replace("\\", "").strip("/ ") != "")),
    st.sampled_from(["a", "A", "/a", "a/b", "*", "a*", "/*/b", "K", "é", "b/"]).map(lambda f: written(f"folder:{f}")),
    st.builds(
        Within,
        latitudes,
        longitudes,
        st.sampled_from([0.001, 1.0, 20.0, 2000.0, 9000.0, 10008.0, 30000.0]),
    ),
    st.builds(Contains, st.sampled_from(["camera", "lens"]), texts),
    st.builds(
        Compare,
        measures,
        st.sampled_from(["<", "<=", "=", ">=", ">"]),
        st.sampled_from([0, 1, 1.5, 60, 1000, 2000, 2e6, 4e6]),
    ),
    st.tuples(measures, st.floats(0, 3000), st.floats(0, 3000)).map(lambda m: Range(m[0], min(m[1:]), max(m[1:]))),
)
trees = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.builds(Not, parts),
        st.lists(parts, max_size=3).map(lambda every: And(tuple(every))),
        st.lists(parts, max_size=3).map(lambda every: Or(tuple(every))),
    ),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(documents=st.lists(rows, max_size=12), where=trees)
def test_sql_and_python_equal_brute_force(database: sqlite3.Connection, documents: list[Row], where: Where) -> None:
    assert_as_brute_force(database, documents, where)


@settings(max_examples=200, deadline=None)
@given(documents=st.lists(paths, min_size=1, max_size=12), pattern=patterns)
@example(documents=["\u212aa"], pattern="/Ka")
@example(documents=["a\\/b", "a/b"], pattern="a\\/b")
@example(documents=["?"], pattern="./?")
def test_path_patterns_equal_brute_force(database: sqlite3.Connection, documents: list[str], pattern: str) -> None:
    bare = pattern.removeprefix("./")
    if not bare.replace("\\", "").strip() or not bare.strip("/"):
        return
    where = path_filter(pattern)
    assert_as_brute_force(database, [Row(path=path) for path in documents], where)
    for path in documents:
        assert holds(where, {"path": path}) == path_matches(pattern, path)


@settings(max_examples=200, deadline=None)
@given(
    place=st.tuples(latitudes, longitudes),
    radius=st.floats(0.001, 20100.0) | st.sampled_from([0.01, 1.0, 111.2]),
    bearings=st.lists(st.tuples(st.floats(0, 2 * math.pi), st.floats(-1e-9, 1e-9) | st.floats(-1, 1)), max_size=20),
)
def test_box_around_the_circle_cuts_nothing_off(
    database: sqlite3.Connection,
    place: tuple[float, float],
    radius: float,
    bearings: list[tuple[float, float]],
) -> None:
    documents = [Row(latitude=lat, longitude=lon) for lat, lon in (
        destination(*place, bearing, radius * (1 + offset)) for bearing, offset in bearings
    )]  # fmt: skip
    assert_as_brute_force(database, documents, Within(*place, radius))


def destination(latitude: float, longitude: float, bearing: float, distance: float) -> tuple[float, float]:
    phi, angle = math.radians(latitude), distance / 6371.0088
    sine = math.sin(phi) * math.cos(angle) + math.cos(phi) * math.sin(angle) * math.cos(bearing)
    latitude_2 = math.asin(max(-1.0, min(1.0, sine)))
    turn = math.atan2(math.sin(bearing) * math.sin(angle) * math.cos(phi), math.cos(angle) - math.sin(phi) * sine)
    return math.degrees(latitude_2), (longitude + math.degrees(turn) + 180) % 360 - 180


# ---- single facts


def test_distance_equals_the_angle_between_vectors() -> None:
    def unit(latitude: float, longitude: float) -> tuple[float, float, float]:
        phi, lam = math.radians(latitude), math.radians(longitude)
        return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)

    chance = random.Random(1)
    for _ in range(200):
        a = chance.uniform(-90, 90), chance.uniform(-180, 180)
        b = chance.uniform(-90, 90), chance.uniform(-180, 180)
        chord = math.dist(unit(*a), unit(*b))
        assert distance_km(*a, *b) == pytest.approx(2 * 6371.0088 * math.asin(chord / 2), rel=1e-9)
    assert distance_km(47.3769, 8.5417, 46.9480, 7.4474) == pytest.approx(95.5, abs=0.3), "Zürich to Bern"
    assert distance_km(0, 179.5, 0, -179.5) == pytest.approx(6371.0088 * math.radians(1))
    assert distance_km(90, 0, 90, 135) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("day", ["2021-07-03", "2021-01-31", "1999-12-31"])
def test_days_begin_where_the_machine_is(database: sqlite3.Connection, name: str, day: str) -> None:
    with zone(name):
        midnight = int(datetime.fromisoformat(day).timestamp())
        documents = [Row(mtime_ns=(midnight + offset) * 10**9) for offset in (-1, 0, 3600)]
        documents += [Row(taken_at=f"{day}T00:00:00"), Row(taken_at="1970-01-01T00:00:00")]
        fill(database, documents)
        assert found(database, f"after:{day}") == [1, 2, 3] and found(database, f"before:{day}") == [0, 4]
        for number, row in enumerate(documents):
            assert holds(written(f"after:{day}"), asdict(row)) == (number in (1, 2, 3))
        listed = dict(database.execute(f"SELECT d.id, {DATE_SQL} FROM {JOINED}").fetchall())
        assert listed[1] == listed[3] == f"{day}T00:00:00" and listed[2] == f"{day}T01:00:00"


def test_near_across_the_antimeridian_and_at_a_pole(database: sqlite3.Connection) -> None:
    documents = [Row(latitude=lat, longitude=lon) for lat, lon in
                 [(0, 179.99), (0, -179.99), (0, 179.0), (89.99, -90), (89.99, 90), (88, 0)]]  # fmt: skip
    fill(database, documents)
    assert found(database, Within(0, 180, 5)) == [0, 1]
    assert found(database, Within(0, -180, 5)) == [0, 1]
    assert found(database, Within(89.99, 0, 5)) == [3, 4]


def test_unknown_is_no_and_its_negation_yes(database: sqlite3.Connection) -> None:
    fill(database, [Row(), Row(camera="X100", latitude=0, longitude=0, width=4, height=5, duration_s=1)])
    for query in ("camera:x100", "near:0,0,1km", "size:<=0.00002mp", "duration:=1s", "size:0px..5px"):
        assert found(database, query) == [1]
        assert found(database, f"-{query}") == [0]


def test_a_date_known_only_to_the_day_lies_in_that_day(database: sqlite3.Connection) -> None:
    fill(database, [Row(taken_at="2021-07-03"), Row(taken_at="2021-07-02T23:59:59")])
    assert found(database, "after:2021-07-03") == [0]
    assert found(database, "before:2021-07-03") == [1]


def test_documents_are_listed_by_the_date_that_filters_use(database: sqlite3.Connection) -> None:
    fill(database, [Row(mtime_ns=86_400 * 10**9 + 7), Row(taken_at="1970-01-01T12:00:00", mtime_ns=5), Row()])
    query = f"SELECT d.id, {DATE_SQL} FROM {JOINED} ORDER BY 2 DESC"
    assert database.execute(query).fetchall() == [
        (0, "1970-01-02T00:00:00"),
        (1, "1970-01-01T12:00:00"),
        (2, "1970-01-01T00:00:00"),
    ]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.jpg", ["a.jpg", "x/y/a.jpg", ".jpg", "a.jpg/b"], ["a.JPG", "a.jpgx"]),
        ("2018", ["2018/a", "x/2018/y/a", "x/2018"], ["2018-04/a", "2018.jpg"]),
        ("2018/*", ["2018/2018-04/x.jpg", "2018/x.jpg"], ["2018", "x/2018/a"]),
        ("2018/2018-*", ["2018/2018-04/x.jpg", "2018/2018-x.jpg"], ["2018/x.jpg"]),
        ("2018/a.jpg", ["2018/a.jpg"], ["2018/a.jpgx", "2018/a", "x/2018/a.jpg"]),
        ("/*.jpg", ["a.jpg"], ["x/a.jpg"]),
        ("holiday/*", ["holiday/a", "holiday/b/a"], ["x/holiday/a", "holiday", "Holiday/a"]),
        ("holiday/**", ["holiday/a", "holiday/b/a"], ["holiday", "holidays/a"]),
        ("holiday/", ["holiday/a", "holiday/b/a", "x/holiday/a"], ["holiday", "holidays/a"]),
        ("**/b/*", ["b/x", "a/b/x", "a/a/b/x", "b/x/y"], ["ab/x"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z", "a/z/b"], ["a", "az"]),
        ("a/**/b/**/*c*d", ["a/b/cd", "a/x/b/y/xcxdcd", "a/b/cd/x"], ["a/b/dc"]),
        ("**/a/**/a/b", ["a/a/b", "a/x/a/b"], ["a/b"]),
        ("[ab].jpg", ["[ab].jpg"], ["a.jpg"]),
        ("\\*.jpg", ["*.jpg", "x/*.jpg"], ["a.jpg"]),
        ("IMG_??.jpg", ["IMG_01.jpg"], ["IMG_1.jpg", "IMG_001.jpg"]),
        ("caf\u00e9/*", ["cafe\u0301/a", "caf\u00e9/a"], ["cafe/a"]),
    ],
)
def test_path_patterns(database: sqlite3.Connection, pattern: str, yes: list[str], no: list[str]) -> None:
    fill(database, [Row(path=path) for path in yes + no])
    assert found(database, path_filter(pattern)) == list(range(len(yes)))


@settings(max_examples=200, deadline=None)
@given(pattern=st.text("ab*?", min_size=1, max_size=8), name=st.text("ab", min_size=1, max_size=8))
def test_patterns_of_one_name_are_those_of_fnmatch(database: sqlite3.Connection, pattern: str, name: str) -> None:
    fill(database, [Row(path=name)])
    assert (found(database, path_filter("/" + pattern)) == [0]) == fnmatch.fnmatchcase(name, pattern)


@settings(max_examples=200, deadline=None)
@given(
    root=st.lists(st.sampled_from(["a", "b", "ab", "é"]), min_size=1, max_size=4).map("/".join),
    documents=st.lists(paths, min_size=1, max_size=6),
    pattern=patterns | st.lists(st.sampled_from(("a", "b", "**", "a*", "é")), min_size=1, max_size=5).map("/".join),
    of=st.sampled_from([("path",), ("named",), ("absolute",), ("path", "named"), ("path", "absolute")]),
    below=st.booleans(),
)
def test_patterns_that_begin_above_the_root(
    database: sqlite3.Connection, root: str, documents: list[str], pattern: str, of: Any, below: bool
) -> None:
    """What is left of a pattern inside of a root is what the whole pattern says of the whole path."""
    names = tuple(name for name in pattern.split("/") if name)
    if not names or not pattern.replace("\\", "").strip("/ "):
        return
    where = Glob(names, below=below, of=of)
    fill(database, [Row(path=path) for path in documents])
    condition = to_condition(where, lambda: [(1, "/" + root), (2, "/elsewhere/a")])
    rows = database.execute(f"SELECT d.id FROM {JOINED} WHERE {condition.sql} ORDER BY 1", dict(condition.parameters))
    spelled = [
        {"path": path, "named": f"{root.split('/')[-1]}/{path}", "absolute": f"{root}/{path}"} for path in documents
    ]
    assert [row[0] for row in rows] == [number for number, one in enumerate(spelled) if holds(where, one)]


@pytest.mark.parametrize(
    ("folder", "yes", "no"),
    [
        ("holiday", ["Holiday/a", "x/holiday/y/a"], ["holiday", "x/holiday", "holidays/a"]),
        ("2021/holiday", ["2021/holiday/a", "x/2021/holiday/a"], ["2021/x/holiday/a", "holiday/2021/a"]),
        ("/holiday", ["holiday/a", "holiday/x/a"], ["x/holiday/a"]),
        ("holiday/", ["x/holiday/a"], ["holiday"]),
        ("2021-*", ["2021-07/a"], ["2021/a"]),
    ],
)
def test_folders(database: sqlite3.Connection, folder: str, yes: list[str], no: list[str]) -> None:
    fill(database, [Row(path=path) for path in yes + no])
    assert found(database, f"folder:{folder}") == list(range(len(yes)))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 40 + "*b", "a" * 255),
        ("**/" + "*a*/" * 20 + "**/" + "a/" * 20 + "b", "a/" * 2000 + "c"),
        ("**/*/" * 30 + "b", "a/" * 2000 + "a"),
        ("?*" * 60 + "b", "a" * 255),
    ],
)
def test_no_pattern_takes_long(database: sqlite3.Connection, pattern: str, path: str) -> None:
    fill(database, [Row(path=path)])
    start = time.process_time()
    assert found(database, path_filter(pattern)) == []
    assert time.process_time() - start < 1.0


def test_values_never_enter_the_sql() -> None:
    nasty = "'; DROP TABLE documents; --"
    tree = And((
        path_filter(nasty), Glob((nasty,), ignore_case=True), Not(Contains("camera", nasty)), Phrase(nasty),
        OneOf("modality", ("image",)), OneOf("modality", (nasty,)), Compare("path", "=", nasty),
    ))  # fmt: skip
    condition = to_condition(tree)
    assert "DROP" not in condition.sql and "image" not in condition.sql
    assert {name for name in condition.parameters if f":{name}" in condition.sql} == set(condition.parameters)
    assert to_condition(And(())) == ("TRUE", {}, True)


def test_a_condition_that_only_excludes_is_taken_to_hold_for_most() -> None:
    excluded, wanted = Not(Phrase("dog")), Phrase("cat")
    assert to_condition(And((excluded, excluded))).is_wide
    assert not to_condition(And((excluded, wanted))).is_wide
    assert not to_condition(And((excluded, Not(OneOf("modality", ("text",)))))).is_wide


def test_a_fixed_beginning_uses_an_index_on_paths(database: sqlite3.Connection) -> None:
    condition = to_condition(And((path_filter("holiday/2021/*.jpg"), Compare("size", ">", 1))))
    database.execute("CREATE INDEX paths ON documents (path)")
    query = f"EXPLAIN QUERY PLAN SELECT d.id FROM {JOINED} WHERE {condition.sql}"
    plan = " ".join(row[3] for row in database.execute(query, dict(condition.parameters)))
    database.execute("DROP INDEX paths")
    assert "USING INDEX paths (path>? AND path<?)" in plan
    assert "mmsearch_glob" not in to_condition(path_filter("holiday/**")).sql, "the range says it all"


CAPTION_WORDS = (
    "red", "Car", "cars", "café", "7", "a-b", "IMG_2043", "20180312", "猫の写真", "北京烤鸭店", "東京 ga", "ภาพถ่ายแมว",
    "사진을",
)  # fmt: skip
PHRASE_WORDS = (
    "red", "car", "CAFE", "7", "a", "b", "a b", "2043", "2018", "IMG_20", "猫", "写真", "京烤", "แมว", "사진", "!", "",
)  # fmt: skip


def test_the_conditions_fit_the_catalogue() -> None:
    sqlite_utils = pytest.importorskip("sqlite_utils")
    migrations = pytest.importorskip("mmsearch.store.local.migrations")
    connection = sqlite3.connect(":memory:")
    register_words(connection)
    migrations.migrate(sqlite_utils.Database(connection))
    register_functions(connection)
    for _, query, _ in filter_help():
        assert found(connection, And((written(query), Not(written(query)), Phrase("a b")))) == []
    columns = {field.name for field in fields(MediaInfo)} | {"path", "modality", "size", "pixels", "long_side"}
    assert found(connection, And(tuple(Not(Compare(column, "=", "x")) for column in columns))) == []
    connection.close()


@settings(max_examples=60, deadline=None)
@given(
    captions=st.lists(st.lists(st.sampled_from(CAPTION_WORDS), max_size=5), max_size=6),
    phrase=st.lists(st.sampled_from(PHRASE_WORDS), min_size=1, max_size=3),
    space=st.sampled_from([" ", ""]),
)
def test_phrases_in_the_catalogue_equal_python(captions: list[list[str]], phrase: list[str], space: str) -> None:
    import sqlite_utils

    from mmsearch.store.local.migrations import migrate

    connection = sqlite3.connect(":memory:")
    register_words(connection)
    migrate(sqlite_utils.Database(connection))
    register_functions(connection)
    connection.execute("INSERT INTO roots (path, is_relative) VALUES ('/nowhere', 0)")
    for number, words in enumerate(captions):
        content = connection.execute(
            "INSERT INTO contents (hash, decoding, modality) VALUES (?, 'x', 'image')", [bytes([number])]
        ).lastrowid
        document = [f"{number}-{space.join(words)}.x", "image", 1, 1, content, " ".join(words)]
        connection.execute(
            "INSERT INTO documents (root_id, path, modality, size, mtime_ns, content_id, caption) "
            "VALUES (1, ?, ?, ?, ?, ?, ?)",
            document,
        )
    where = Phrase(space.join(phrase))
    names = [f"{i}-{space.join(words)}.x" for i, words in enumerate(captions)]
    texts = [[name, " ".join(words)] for name, words in zip(names, captions, strict=True)]
    expected = [i for i, both in enumerate(texts) if holds(where, {"name": both[0], "words": both})]
    assert found(connection, where) == [number + 1 for number in expected]
    rest = set(range(1, len(captions) + 1)) - {number + 1 for number in expected}
    assert found(connection, Not(where)) == sorted(rest)
    connection.close()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Compare("date", ">=", datetime(2021, 1, 1, tzinfo=timezone.utc)),
        lambda: Compare("date", ">=", datetime(2021, 1, 1, microsecond=1)),
        lambda: Compare("date", ">=", "2021"),
        lambda: Compare("size", ">=", datetime(2021, 1, 1)),
        lambda: Compare("size", "; DROP", 1),  # type: ignore[arg-type]
        lambda: Within(90.1, 0, 1),
        lambda: Within(0, -181, 1),
        lambda: Within(math.nan, 0, 1),
        lambda: Within(0, 0, 0),
        lambda: Within(0, 0, math.inf),
        lambda: to_condition(Compare("colour", "=", 1)),
        lambda: to_condition(OneOf("1; DROP TABLE documents", ("x",))),
    ],
)
def test_trees_that_make_no_sense(wrong: Any) -> None:
    with pytest.raises(UsageError):
        wrong()
