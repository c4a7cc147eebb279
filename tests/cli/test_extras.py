"""What `query` does beside printing: contact sheets in any script, opening what lies in an archive."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.cli import fonts
from mmsearch.cli.query_commands import _file_to_open
from mmsearch.cli.sheet import CELL, draw_sheet
from mmsearch.core.errors import UsageError
from mmsearch.core.types import Hit
from tests.support.colours import save_colour


def test_a_member_of_an_archive_is_opened_from_a_copy(tmp_path: Path) -> None:
    photo = save_colour(tmp_path / "0001.png", "red")
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        tar.add(photo, "0001.png")
    opened = Path(_file_to_open(tmp_path / "00000.tar" / "0001.png"))
    assert opened.read_bytes() == photo.read_bytes()
    assert opened.parent.stat().st_mode & 0o077 == 0
    assert _file_to_open(photo) == str(photo)
    with pytest.raises(UsageError, match="not there any more"):
        _file_to_open(tmp_path / "00000.tar" / "0002.png")


@pytest.mark.parametrize(
    "text", ["plain.jpg", "Übergröße ñ.jpg", "Москва.jpg", "猫の写真.jpg", "ภาพ.jpg", "\x00\ue000\uffff"]
)
def test_no_letter_is_an_empty_box(text: str) -> None:
    shown = list(fonts.runs(text))
    assert sum(len(piece) for piece, _ in shown) == len(text)
    for piece, font in shown:
        box = bytes(font.getmask("\uffff"))
        assert all(letter.isspace() or bytes(font.getmask(letter)) != box for letter in piece)
    assert fonts.width_of(text) > 0


def test_without_any_font_for_it_a_letter_is_a_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_paths", lambda letter: iter(()))
    monkeypatch.setattr(fonts, "_used", [])
    fonts._font_for.cache_clear()
    try:
        assert "".join(piece for piece, _ in fonts.runs("a猫b")) == f"a{fonts.SUBSTITUTE}b"
    finally:
        fonts._font_for.cache_clear()


def test_a_sheet_says_the_names(tmp_path: Path) -> None:
    hits = [
        Hit(rank=i + 1, score=0.5, path=str(save_colour(tmp_path / f"{name}.png", "red")), modality="image", segment=0)
        for i, name in enumerate(["猫", "Москва " * 10, "plain"])
    ]
    draw_sheet(hits, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        below = np.asarray(sheet.convert("L"))[CELL + 12 : CELL + 42]
    assert (below < 100).any(), "there is writing below the pictures"
