"""Captions beside photos: which file is whose caption, and what happens when it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmsearch.api import Index
from tests.support.colours import ColourEncoder, save_colour


def captions(index: Index) -> dict[str, str | None]:
    rows = index._directory.catalogue.sql.execute("SELECT path, caption FROM documents ORDER BY path")
    return dict(rows.fetchall())


def test_a_caption_belongs_to_its_photo_and_is_no_document(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name, colour in (("a.png", "red"), ("b.png", "blue"), ("c.JPG", "green")):
        save_colour(folder / name, colour)
    (folder / "a.txt").write_text("the barn in June")
    (folder / "b.png.txt").write_text("at sea")
    (folder / "b.txt").write_text("the longer name wins")
    (folder / "c.txt").write_text("suffixes in capitals count")
    (folder / "alone.txt").write_text("a note of its own")
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("another folder, another text")
    report = index.add(folder)
    assert (report.indexed, report.skipped) == (5, ())
    assert captions(index) == {
        "a.png": "the barn in June",
        "alone.txt": None,
        "b.png": "at sea",
        "c.JPG": "suffixes in capitals count",
        "sub/a.txt": None,
    }
    assert index.add(folder).unchanged == 5


def test_every_change_of_a_caption_is_noticed(index: Index, tmp_path: Path, encoder: ColourEncoder) -> None:
    photo = save_colour(tmp_path / "photos" / "a.png", "red")
    caption = photo.with_suffix(".txt")

    def after(text: str | None) -> tuple[int, str | None]:
        caption.unlink(missing_ok=True)
        if text is not None:
            caption.write_text(text)
            os.utime(caption, ns=(len(text), len(text)))
        return index.add(tmp_path / "photos").updated, captions(index)["a.png"]

    index.add(photo.parent)
    assert after("first") == (1, "first")
    assert after("second") == (1, "second")
    assert after("second") == (0, "second")
    assert after(None) == (1, None)
    assert encoder.encoded_images == 1


def test_two_copies_of_a_photo_keep_their_own_captions(index: Index, tmp_path: Path, encoder: ColourEncoder) -> None:
    first = save_colour(tmp_path / "photos" / "a.png", "red")
    second = first.with_name("b.png")
    second.write_bytes(first.read_bytes())
    first.with_suffix(".txt").write_text("mine")
    second.with_suffix(".txt").write_text("yours")
    index.add(first.parent)
    assert captions(index) == {"a.png": "mine", "b.png": "yours"}
    assert encoder.encoded_images == 1


def test_a_moved_photo_takes_the_caption_beside_its_new_place(index: Index, tmp_path: Path) -> None:
    photo = save_colour(tmp_path / "photos" / "a.png", "red")
    photo.with_suffix(".txt").write_text("old")
    index.add(photo.parent)
    moved = photo.rename(photo.with_name("z.png"))
    photo.with_suffix(".txt").unlink()
    moved.with_suffix(".txt").write_text("new")
    assert index.add(photo.parent).updated == 1
    assert captions(index) == {"z.png": "new"}


def test_a_long_text_beside_a_photo_is_a_text(index: Index, tmp_path: Path) -> None:
    photo = save_colour(tmp_path / "photos" / "a.png", "red")
    photo.with_suffix(".txt").write_text("blue. " * 20_000)
    assert index.add(photo.parent).indexed == 2
    assert captions(index) == {"a.png": None, "a.txt": None}


def test_a_photo_indexed_by_its_name_has_its_caption(index: Index, tmp_path: Path) -> None:
    photo = save_colour(tmp_path / "photos" / "a.png", "red")
    photo.with_suffix(".txt").write_text("mine")
    index.add(photo)
    assert captions(index) == {"a.png": "mine"}
    assert index.add(photo.parent).unchanged == 1


@pytest.mark.parametrize("name", ["a.xmp", "a.png.xmp"])
def test_xmp_is_a_caption_too(index: Index, tmp_path: Path, name: str) -> None:
    photo = save_colour(tmp_path / "photos" / "a.png", "red")
    (photo.parent / name).write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
        '<rdf:li xml:lang="x-default">From XMP</rdf:li></rdf:Alt></dc:description></rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    )
    report = index.add(photo.parent)
    assert (report.indexed, report.skipped) == (1, ())
    assert captions(index) == {"a.png": "From XMP"}
