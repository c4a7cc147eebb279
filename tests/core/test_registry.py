"""The registry: own rows, rows imported late, and rows that an installed package brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsearch.core.errors import UsageError
from mmsearch.core.registry import Registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with a good, a broken and a taken name."""
    (tmp_path / "shapes_of_others.py").write_text("ROUND = 'round of others'\n")
    info = tmp_path / "shapes_of_others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shapes-of-others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[mmsearch.shapes]\nround = shapes_of_others:ROUND\nbroken = shapes_of_others:MISSING\n"
        "flat = shapes_of_others:ROUND\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_own_rows_win_and_installed_ones_follow(package: None) -> None:
    shapes: Registry[str] = Registry("mmsearch.shapes", "shape", {"flat": "mmsearch.core.home:__name__"})
    assert shapes.own == ("flat",)
    assert shapes["flat"] == "mmsearch.core.home", "imported when wanted; not the package's"
    assert shapes["round"] == "round of others"
    assert list(shapes) == ["flat", "round", "broken"] and shapes.own == ("flat",)
    assert "round" in shapes and "square" not in shapes
    assert shapes.find("square") is None
    with pytest.raises(UsageError, match=r'unknown shape "square"; expected one of flat, round, broken'):
        shapes["square"]
    with pytest.raises(UsageError, match=r"the shape broken \(shapes_of_others:MISSING\) cannot be loaded"):
        shapes["broken"]


def test_own_names_need_no_look_at_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(**_: str) -> None:
        raise AssertionError("the entry points were listed")

    monkeypatch.setattr("importlib.metadata.entry_points", never)
    numbers: Registry[int] = Registry("mmsearch.numbers", "number", {"one": 1})
    numbers.add("two", 2)
    assert (numbers["one"], numbers.find("two"), "two" in numbers, numbers.own) == (1, 2, True, ("one", "two"))
    with pytest.raises(UsageError, match="there is a number two already"):
        numbers.add("two", 3)
