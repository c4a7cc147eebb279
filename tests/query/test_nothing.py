"""What is said where a query finds nothing: the condition that nothing meets, with what there is instead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mmsearch.api import Index
from mmsearch.cli import app
from tests.support.colours import COLOURS, ColourEncoder, save_colour

FILES = {
    "2018/2018-04/x.jpg": ("NIKON D70", "2018-04-03 10:00:00", 46.5),
    "2018-summer/beach.jpg": ("X100", "2018-07-03 10:00:00", None),
    "misc/IMG_2043.jpg": (None, "2024-05-01 09:00:00", None),
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    root = tmp_path_factory.mktemp("nothing") / "photos"
    for number, (name, (camera, date, latitude)) in enumerate(FILES.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (40, 30), list(COLOURS.values())[number])
        exif = Image.Exif()
        if camera:
            exif[0x0110] = camera
        exif.get_ifd(0x8769)[0x9003] = date.replace("-", ":")
        if latitude is not None:
            exif.get_ifd(0x8825).update({1: "N", 2: (latitude, 0.0, 0.0), 3: "E", 4: (7.9, 0.0, 0.0)})
        image.save(root / name, exif=exif)
    with Index.open(root.parent / "index", create=True, encoder=ColourEncoder()) as opened:
        opened.add(root)
        yield opened


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("red path:2019/*", "no file lies under 2019/*; did you mean 2018?"),
        ("path:summer/*", "no file lies under summer/*; did you mean 2018-summer?"),
        ("path:Misc/x", "no file lies under Misc/x; did you mean misc?"),
        ("red path:IMG_2043", "no file or folder is called IMG_2043; did you mean IMG_2043.jpg?"),
        ("path:qqqq", "no file or folder is called qqqq"),
        ("red folder:holiday", "no folder is called holiday"),
        ("folder:sumer", "no folder is called sumer; did you mean 2018-summer?"),
        ("red camera:leica", "no camera called leica here: NIKON D70, X100"),
        ("lens:50mm", "no file says which lens it was taken with"),
        ("after:2099", "no file is from 2099 or later: the newest is from 2024-05-01"),
        ("red before:2001-05", "no file is from before 2001-05: the oldest is from 2018-04-03"),
        ("near:1,1,1km", "nothing was taken within 1 km of 1, 1: the nearest was within 20,100 km of there"),
        ("near:46.6,7.9,1km", "nothing was taken within 1 km of 46.6, 7.9: the nearest was within 100 km of there"),
        ("type:video", "there is no video here: the index holds 3 images"),
        ("size:>2mp", "no file meets size:>2mp: here they have 0.0012 to 0.0012 mp"),
        ("duration:>3s", "no file says its duration"),
        ('"a cat"', 'no name, caption or text has "a cat" in it'),
        ('-"jpg" red', '-"jpg" leaves out every file'),
        ("-type:image", "-type:image leaves out every file"),
        ("red after:2020 camera:nikon", "after:2020 and camera:nikon each meet files, together none"),
        ("after:2020 camera:nikon type:image", "after:2020 and camera:nikon each meet files, together none"),
        ('red "x" after:2018-06', 'after:2018-06 and "x" each meet files, together none'),
        ("camera:leica after:2099", "no camera called leica here: NIKON D70, X100; no file is from 2099 or later: the "
                                    "newest is from 2024-05-01"),
    ],
)  # fmt: skip
def test_the_condition_that_nothing_meets_is_named(index: Index, query: str, says: str) -> None:
    hits = index.search(query)
    assert hits == [] and hits.reason is not None
    assert sorted(hits.reason.split("; ")) == sorted(says.split("; "))


ALL = {"x", "beach", "IMG_2043"}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("path:2018/*", {"x"}), ("path:2018", {"x"}), ("path:2018/", {"x"}), ("path:/2018", {"x"}),
        ("path:2018/2018-04", {"x"}), ("path:2018\\2018-04", {"x"}), ("path:photos/2018/*", {"x"}),
        ("path:photos", ALL),
        ("path:{root}/2018", {"x"}), ("path:{root}/2018/*", {"x"}), ("path:{root}", ALL), ("path:{above}/*", ALL),
        ("path:{root}/misc/IMG_2043.jpg", {"IMG_2043"}), ("path:~/photos/misc", {"IMG_2043"}),
        ("folder:photos", ALL), ("folder:{root}/MISC", {"IMG_2043"}), ("folder:~/photos/misc/", {"IMG_2043"}),
        ("-path:2018/*", {"beach", "IMG_2043"}), ("-path:{root}/2018", {"beach", "IMG_2043"}),
    ],
)  # fmt: skip
def test_paths_as_people_write_them(index: Index, query: str, names: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = index.path.parent / "photos"
    monkeypatch.setenv("HOME", str(root.parent))
    for text in (query, f"red {query}"):
        written = text.format(root=root, above=root.parent)
        assert {Path(hit.path).stem for hit in index.search(written)} == names


def test_an_empty_index_says_so(tmp_path: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as empty:
        for query in ("red", "type:image", '"x" camera:leica'):
            assert empty.search(query).reason == "the index is empty: fill it with `mmsearch index FOLDER`"
        save_colour(tmp_path / "photos" / "one.png", "red")
        empty.add(tmp_path / "photos")
        hits = empty.search("red")
        assert hits and hits.reason is None
        assert empty.search("red type:text").reason == "there is no text here: the index holds 1 image"
        assert empty.search("red", modality="text").reason == "there is no text here: look for type:image"


def test_command_line_and_python_say_the_same(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(app, ["query", "--index", os.fspath(index.path), "camera:leica after:2019"])
    assert shown.exit_code == 1
    assert "no camera called leica here: NIKON D70, X100" in shown.stderr


def test_a_package_says_it_of_its_own_key(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmsearch.filters import KEYS, Compare, FilterKey, Held, Value

    class Wide(FilterKey):
        meaning, example = "wider than", "wide:3"

        @staticmethod
        def where(value: Value) -> Compare:
            return Compare("width", ">", int(value.text))

        @classmethod
        def unmet(cls, name: str, value: Value, held: Held) -> str:
            return f"nothing is wider than {value.text}: the widest has {held.span('width')[1]}"  # type: ignore[index]

    monkeypatch.setitem(KEYS._loaded, "wide", Wide)
    assert index.search("wide:99").reason == "nothing is wider than 99: the widest has 40"
