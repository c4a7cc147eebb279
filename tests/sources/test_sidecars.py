"""Which sidecar belongs to which photo, by the names that programs and Google Takeout give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsearch.sources import FileEntry, WalkRules, names_in, walk
from mmsearch.sources.sidecars import Sidecars

PHOTOS = frozenset({".jpg", ".png", ".heic", ".nef", ".mp4"})


def pairs(names: list[str]) -> dict[str, list[str]]:
    """Of a folder with these files: each that a walk meets, with its sidecars."""
    known = Sidecars(names)
    return {name: found for name in names if Path(name).suffix.lower() in PHOTOS and (found := list(known.of(name)))}


LONG = "PXL_20230101_120000123"


@pytest.mark.parametrize(
    ("photo", "sidecar"),
    [
        ("a.jpg", "a.jpg.xmp"),
        ("a.jpg", "a.xmp"),
        ("A.NEF", "A.XMP"),
        ("a.mp4", "a.mp4.xmp"),
        ("a.jpg", "a.jpg.json"),
        ("a.jpg", "a.jpg.supplemental-metadata.json"),
        ("a.JPG", "a.JPG.supplemental-metadata.json"),
        ("a(1).jpg", "a.jpg(1).json"),
        ("a(1).jpg", "a.jpg.supplemental-metadata(1).json"),
        ("a(12).jpg", "a.jpg(12).json"),
        ("a(1).jpg", "a(1).jpg.json"),
        ("a-edited.jpg", "a.jpg.json"),
        ("a-edited(1).jpg", "a.jpg(1).json"),
        ("a(1)-edited.jpg", "a.jpg(1).json"),
        ("a-bearbeitet.jpg", "a.jpg.supplemental-metadata.json"),
        ("a-modifi\u00e9.jpg", "a.jpg.json"),
        (f"{LONG}.jpg", f"{LONG}.jpg.supplemental-metada.json"),
        (f"{LONG}(2).jpg", f"{LONG}.jpg.supplemental-metada(2).json"),
        (f"{LONG}_exported_stab.jpg", f"{LONG}_exported_stab.jpg.suppl.json"),
        (f"{LONG}-edited.jpg", f"{LONG}.jpg.supplemental-metada.json"),
        (f"{'x' * 40}.jpg", f"{'x' * 40}.jpg.s.json"),
        (f"{'x' * 42}.jpg", f"{'x' * 42}.jpg.json"),
        (f"{'x' * 47}.jpg", f"{'x' * 46}.json"),
    ],
)
def test_a_sidecar_is_found_by_its_name(photo: str, sidecar: str) -> None:
    assert pairs([photo, sidecar]) == {photo: [sidecar]}


@pytest.mark.parametrize(
    ("photo", "other"),
    [
        ("a.jpg", "b.jpg.json"),
        ("a.jpg", "a.json"),
        ("a.jpg", "a.jpg(1).json"),
        ("a(1).jpg", "a.jpg.json"),
        ("a(1).jpg", "a.jpg(2).json"),
        ("a.jpg", "a.jpg.supplementary.json"),
        ("a.jpg", "metadata.json"),
        ("a.jpg", "A.jpg.json"),
        ("a.jpg", "ab.xmp"),
        ("a.txt", "a.xmp"),
        ("not-edited-yet.jpg", "not.jpg.json"),
        (f"{'x' * 20}.jpg", f"{'x' * 19}.json"),
    ],
)
def test_another_files_sidecar_is_left_alone(photo: str, other: str) -> None:
    assert pairs([photo, other]) == {}


def test_those_that_count_first_come_first() -> None:
    names = ["a.jpg.json", "a.xmp", "a.jpg.xmp", "a.txt", "a.jpg.txt", "a.jpg"]
    assert pairs(names) == {"a.jpg": ["a.jpg.txt", "a.txt", "a.jpg.xmp", "a.xmp", "a.jpg.json"]}


def test_numbers_and_edits_do_not_mix() -> None:
    assert pairs(["a.jpg", "a.jpg.json", "a(1).jpg", "a.jpg(1).json", "a-edited.jpg"]) == {
        "a.jpg": ["a.jpg.json"],
        "a(1).jpg": ["a.jpg(1).json"],
        "a-edited.jpg": ["a.jpg.json"],
    }


def test_a_walk_meets_photos_with_their_sidecars_and_no_sidecar_alone(tmp_path: Path) -> None:
    names = "a.jpg a.jpg.xmp a_01.jpg.xmp b.jpg b.jpg.json other.json gone.jpg.xmp a:b.jpg a:b.xmp"
    for name in names.split():
        (tmp_path / name).write_text(name)
    met = {entry.path: names_in(entry.sidecars) for entry in walk(tmp_path, WalkRules(), "", PHOTOS)
           if isinstance(entry, FileEntry)}  # fmt: skip
    assert met == {
        "a.jpg": ["a.jpg.xmp"], "b.jpg": ["b.jpg.json"], "a:b.jpg": ["a:b.xmp"], "other.json": [], "gone.jpg.xmp": []
    }  # fmt: skip
    (alone,) = walk(tmp_path, WalkRules(), "a.jpg", PHOTOS)
    assert isinstance(alone, FileEntry)
    assert names_in(alone.sidecars) == ["a.jpg.xmp"], "a file named by itself has its own too"
