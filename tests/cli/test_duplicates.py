"""`mmsearch duplicates`: groups with the best first, in all forms; every file stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmsearch.api import Index
from tests.support.colours import ColourEncoder, save_colour
from tests.support.program import run_program as run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("duplicates")
    photos = folder / "photos"
    save_colour(photos / "red.png", "red", (300, 200))
    save_colour(photos / "small.png", "red", (150, 100), seed=1)
    shutil.copy(photos / "red.png", photos / "copy\nof it.png")
    save_colour(photos / "blue.png", "blue", (300, 200))
    with Index.open(folder / "default", create=True, encoder=ColourEncoder()) as index:
        index.add(photos)
    return folder


def test_groups_with_what_to_keep_first(home: Path) -> None:
    before = {path: path.read_bytes() for path in (home / "photos").iterdir()}
    done = run("duplicates", home=home)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["1", "keep"], ["1", "copy"], ["1", "copy"]]
    assert rows[0][2].startswith("300×200 ") and rows[2][3].endswith("small.png")
    assert "1 group: 2 files" in done.stderr and "nothing was deleted" in done.stderr
    assert {path: path.read_bytes() for path in (home / "photos").iterdir()} == before


def test_all_forms_say_what_python_says(home: Path) -> None:
    with Index.open(home / "default") as index:
        [group] = index.duplicates()
    [values] = [json.loads(line) for line in run("duplicates", "--json", home=home).stdout.splitlines()]
    paths = [values["keep"]["path"], *(one["path"] for one in values["others"])]
    assert paths == [one.path for one in group.documents] and values["group"] == 1
    others = run("duplicates", "-0", home=home).stdout.split("\0")
    assert others == [*paths[1:], ""]
    assert run("duplicates", "--paths", home=home).stdout == "".join(f"{path}\n" for path in paths[1:])


def test_where_there_are_none(home: Path) -> None:
    assert "no duplicates" in run("duplicates", "path:blue*", home=home, code=1).stderr
    assert run("duplicates", "path:blue*", "--json", home=home, code=1).stdout == ""
    assert "only filters" in run("duplicates", "red", home=home, code=2).stderr
    assert "exclude each other" in run("duplicates", "--json", "-0", home=home, code=2).stderr
