"""What lies beside a photo, read to one description: which says what first, and what cannot be read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmsearch.core.types import NOTHING_BESIDE, Beside, MediaInfo
from mmsearch.media.metadata.sidecars import read_sidecars
from mmsearch.media.metadata.takeout import read_takeout
from tests.media.metadata.test_xmp import bag, packet, spoken


def takeout(**more: Any) -> dict[str, Any]:
    return {
        "title": "a.jpg",
        "description": "By the lake",
        "photoTakenTime": {"timestamp": "1299215167", "formatted": "Mar 4, 2011, 5:06:07 AM UTC"},
        "geoData": {"latitude": 46.5, "longitude": 7.9, "altitude": 0.0},
        "people": [{"name": "Ada"}, {"name": "Grace"}],
        **more,
    }


@pytest.fixture
def berlin() -> Iterator[None]:
    """This machine stands in Berlin, an hour ahead of UTC in March."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_takeout_is_read() -> None:
    assert read_takeout(json.dumps(takeout()).encode()) == MediaInfo(
        taken_at="2011-03-04T06:06:07", latitude=46.5, longitude=7.9, description="By the lake\nAda, Grace"
    )


@pytest.mark.parametrize(
    ("places", "place"),
    [
        ({"geoData": {"latitude": 0.0, "longitude": 0.0}}, (None, None)),
        (
            {"geoData": {"latitude": 0, "longitude": 0}, "geoDataExif": {"latitude": -33.5, "longitude": 18}},
            (-33.5, 18),
        ),
        ({"geoData": None}, (None, None)),
        ({"geoData": {"latitude": "46.5", "longitude": "7.9"}}, (None, None)),
        ({"geoData": {"latitude": 1e400, "longitude": 7.9}}, (None, None)),
        ({"geoData": {"latitude": 146, "longitude": 7.9}}, (None, None)),
    ],
)
def test_places_of_takeout(places: dict[str, Any], place: tuple[float | None, float | None]) -> None:
    info = read_takeout(json.dumps(takeout(**places)).encode())
    assert info is not None
    assert (info.latitude, info.longitude) == place


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff\xfe{}", b'{"caption": "of somebody else"}', b'{"geoData"' * 9,
    ],
)  # fmt: skip
def test_other_json_says_nothing(data: bytes) -> None:
    assert read_takeout(data) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"photoTakenTime": {"timestamp": "soon"}},
        {"photoTakenTime": {"timestamp": "9" * 40}},
        {"photoTakenTime": "1299215167"},
        {"photoTakenTime": None},
        {"people": "Ada"},
        {"people": [{"name": 5}, 7, {"name": "\ud800"}]},
        {"description": ["By", "the lake"]},
    ],
)
def test_a_wrong_value_costs_itself_alone(wrong: dict[str, Any]) -> None:
    info = read_takeout(json.dumps(takeout(**wrong)).encode())
    assert info is not None
    assert info.latitude == 46.5


def write(folder: Path, **files: str | bytes) -> Beside:
    """Files by their suffix, with ``_`` for the dots."""
    names = []
    for name, content in files.items():
        path = folder / ("a" + name.replace("_", "."))
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        names.append(path.name)
    return read_sidecars(folder / "a.jpg", names)


FULL = packet(
    spoken("dc:description", x_default="Evening") + bag("dc:subject", "sea"),
    'exif:DateTimeOriginal="2001-02-03T04:05:06" exif:GPSLatitude="10,0N" exif:GPSLongitude="20,0E" xmp:Rating="3"',
)


def test_several_sidecars_complete_each_other(tmp_path: Path) -> None:
    found = write(
        tmp_path, _txt="A caption", _xmp=FULL, _jpg_json=json.dumps(takeout(geoData={"latitude": 1, "longitude": 2}))
    )
    assert found.caption == "A caption\nEvening\nsea\nBy the lake\nAda, Grace"
    assert (found.info.taken_at, found.rule) == ("2001-02-03T04:05:06", "always")
    assert (found.info.latitude, found.info.longitude, found.info.rating) == (10, 20, 3)


def test_a_place_is_not_put_together_from_two(tmp_path: Path) -> None:
    found = write(tmp_path, _xmp=packet(attributes='xmp:Rating="3"'), _jpg_json=json.dumps(takeout()))
    assert (found.info.latitude, found.info.longitude, found.info.rating) == (46.5, 7.9, 3)


@pytest.mark.parametrize(
    ("beside", "own", "date"),
    [
        (Beside(info=MediaInfo(taken_at="2001-01-01T00:00:00")), "2002-01-01T00:00:00", "2001-01-01T00:00:00"),
        (Beside(info=MediaInfo(taken_at="2001-01-01T00:00:00"), rule="alone"), "2002-01-01T00:00:00", None),
        (Beside(info=MediaInfo(taken_at="2001-01-01T00:00:00"), rule="alone"), None, "2001-01-01T00:00:00"),
        (Beside(info=MediaInfo(taken_at="2002-01-01T13:00:00"), rule="another day"), "2002-01-01T00:00:00", None),
        (
            Beside(info=MediaInfo(taken_at="1965-01-01T00:00:00"), rule="another day"),
            "2002-01-01T00:00:00",
            "1965-01-01T00:00:00",
        ),
        (Beside(info=MediaInfo(taken_at="1965-01-01T00:00:00"), rule="another day"), None, "1965-01-01T00:00:00"),
        (Beside(), "2002-01-01T00:00:00", None),
    ],
)
def test_which_date_counts(beside: Beside, own: str | None, date: str | None) -> None:
    assert beside.date_for(own) == date


def test_the_date_of_a_scan_yields_to_the_pictures_own(tmp_path: Path) -> None:
    found = write(tmp_path, _xmp=packet(attributes='xmp:CreateDate="2015-01-02T03:04:05"'))
    assert (found.info.taken_at, found.rule) == ("2015-01-02T03:04:05", "alone")
    assert write(tmp_path, _jpg_json=json.dumps(takeout())).rule == "another day"


@pytest.mark.parametrize("suffix", ["_txt", "_xmp", "_jpg_json"])
@pytest.mark.parametrize("content", [b"", bytes(100), b"\xff" * 100, b"<x:xmpmeta", b"a" * 10_000_000])
def test_what_cannot_be_read_is_none(tmp_path: Path, suffix: str, content: bytes) -> None:
    if (suffix, content) != ("_txt", b"<x:xmpmeta"):
        assert write(tmp_path, **{suffix: content}) == NOTHING_BESIDE


def test_a_huge_sidecar_is_not_read(tmp_path: Path) -> None:
    for name in ("a.xmp", "a.jpg.json"):
        with (tmp_path / name).open("wb") as file:
            file.write(FULL.encode())
            file.truncate(100_000_000_000)
    assert read_sidecars(tmp_path / "a.jpg", ["a.xmp", "a.jpg.json"]) == NOTHING_BESIDE


def test_what_is_gone_by_now_is_none(tmp_path: Path) -> None:
    assert read_sidecars(tmp_path / "a.jpg", ["a.xmp", "a.jpg.json", "a.txt"]) == NOTHING_BESIDE
