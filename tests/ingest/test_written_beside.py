"""Date, place, rating and words that stand beside a photo or in it: filters and words use them and follow changes."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.api import Index
from mmsearch.ingest import ingest
from mmsearch.media.image.reader import ImageDecoder
from tests.media.metadata.test_sidecars import takeout
from tests.media.metadata.test_xmp import bag, packet, spoken
from tests.media.test_hdr import FILES, PQ, coded, light_of, scene
from tests.support.colours import ColourEncoder

XMP = packet(
    spoken("dc:description", x_default="zanzibarella") + bag("lr:hierarchicalSubject", "Places|Tanzania"),
    'exif:DateTimeOriginal="2011-03-04T05:06:07" exif:GPSLatitude="46,30.0N" exif:GPSLongitude="7,54.0E" '
    'xmp:Rating="4"',
)
TAKEOUT = json.dumps(takeout(description="zanzibarella"))


def photo(path: Path, **extra: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    seed = sum(path.name.encode())
    picture = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(picture).resize((120, 90)).save(path, **extra)
    return path


def named(index: Index, query: str) -> list[str]:
    return sorted(Path(hit.path).name for hit in index.search(query, k=50, collapse=False))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photo for each way in which something may be written, and one of which nothing is known."""
    folder = tmp_path / "photos"
    photo(folder / "embedded.jpg", xmp=XMP.encode())
    photo(folder / "stem.jpg").with_suffix(".xmp").write_text(XMP)
    photo(folder / "plain.jpg")
    photo(folder / "raw.png")
    for name, text in (
        ("full.jpg", XMP),
        ("capitals.JPG", XMP),
        ("takeout.jpg.supplemental-metadata", TAKEOUT),
        ("old.jpg", TAKEOUT),
        ("PXL_20230101_120000123.jpg.supplemental-metada", TAKEOUT),
    ):
        photo(folder / (name.split(".supp")[0]))
        (folder / f"{name}.{'XMP' if text == XMP else 'json'}").write_text(text)
    photo(folder / "twice(1).jpg")
    (folder / "twice.jpg(1).json").write_text(TAKEOUT)
    photo(folder / "old-edited.jpg")
    return folder


BESIDE_XMP = ["capitals.JPG", "full.jpg", "stem.jpg"]
BESIDE_JSON = ["PXL_20230101_120000123.jpg", "old-edited.jpg", "old.jpg", "takeout.jpg", "twice(1).jpg"]


def test_filters_and_words_use_it_wherever_it_stands(index: Index, folder: Path) -> None:
    report = index.add(folder)
    assert (report.indexed, report.skipped) == (11, ())
    everywhere = sorted([*BESIDE_XMP, *BESIDE_JSON, "embedded.jpg"])
    for query in ("before:2012", "after:2011-03 before:2011-04", "near:46.5,7.9,5km", '"zanzibarella"'):
        assert named(index, query) == everywhere, query
    assert named(index, "rating:4") == named(index, "rating:>=3") == sorted([*BESIDE_XMP, "embedded.jpg"])
    assert named(index, "rating:5") == []
    assert named(index, '"tanzania"') == sorted([*BESIDE_XMP, "embedded.jpg"])
    assert named(index, '"Grace"') == BESIDE_JSON
    assert index.add(folder).unchanged == 11


def test_changes_are_followed_without_a_picture_being_opened(
    index: Index, tmp_path: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photo(tmp_path / "photos" / "a.jpg")
    index.add(path.parent)
    encoded = encoder.encoded_images

    def no_picture(*_: object) -> None:
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(ImageDecoder, "decode", no_picture)
    monkeypatch.setattr(ImageDecoder, "describe", no_picture)
    monkeypatch.setattr("mmsearch.pipeline.reading.read_whole", no_picture)
    sidecar = path.with_name("a.jpg.xmp")
    sidecar.write_text(XMP)
    assert index.add(path.parent).updated == 1
    assert named(index, "before:2012 near:46.5,7.9,5km rating:4") == ["a.jpg"]
    sidecar.write_text(XMP.replace("2011-03-04", "2008-03-04").replace("46,30", "56,30"))
    assert index.add(path.parent).updated == 1
    assert named(index, "before:2012 near:46.5,7.9,5km") == []
    assert named(index, "before:2009 near:56.5,7.9,5km") == ["a.jpg"]
    sidecar.unlink()
    path.with_name("a.jpg.json").write_text(TAKEOUT)
    assert (
        index.add(
            path,
        ).updated
        == 1
    )
    assert named(index, "before:2009") == named(index, "rating:4") == []
    assert named(index, "before:2012 near:46.5,7.9,5km") == ["a.jpg"]
    path.with_name("a.jpg.json").unlink()
    assert index.add(path.parent).updated == 1
    assert named(index, "before:2012") == named(index, '"zanzibarella"') == []
    assert encoder.encoded_images == encoded


def exif(date: str) -> Image.Exif:
    found = Image.Exif()
    found.get_ifd(0x8769)[0x9003] = date
    found.get_ifd(0x8825).update({1: "N", 2: (10.0, 0.0, 0.0), 3: "E", 4: (20.0, 0.0, 0.0)})
    return found


def test_what_stands_beside_counts_before_what_stands_inside(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    photo(folder / "xmp.jpg", exif=exif("2020:05:05 12:00:00")).with_suffix(".xmp").write_text(XMP)
    for name, date in (("same.jpg", "2011:03:03 22:00:00"), ("corrected.jpg", "2020:05:05 12:00:00")):
        photo(folder / name, exif=exif(date)).with_name(f"{name}.json").write_text(TAKEOUT)
    index.add(folder)
    assert named(index, "after:2020") == []
    assert named(index, "before:2011-03-04") == ["same.jpg"], "Takeout's UTC does not move a photo to another day"
    assert named(index, "near:46.5,7.9,5km") == ["corrected.jpg", "same.jpg", "xmp.jpg"]
    (folder / "xmp.xmp").unlink()
    index.add(folder)
    assert named(index, "after:2020 near:10,20,1km") == ["xmp.jpg"], "without it, its own is back"


@pytest.mark.parametrize("content", ["<x:xmpmeta", "\0" * 100, "<!DOCTYPE x [<!ENTITY a 'b'>]>" + XMP, "a" * 9_000_000])
def test_a_broken_sidecar_costs_nothing_but_itself(index: Index, tmp_path: Path, content: str) -> None:
    path = photo(tmp_path / "photos" / "a.jpg", exif=exif("2020:05:05 12:00:00"))
    path.with_suffix(".xmp").write_text(content)
    path.with_name("a.jpg.json").write_text(content)
    report = index.add(path.parent)
    assert (report.indexed, report.skipped) == (1, ())
    assert named(index, "after:2020 near:10,20,1km") == ["a.jpg"]


def test_a_sidecar_without_its_photo_is_told(index: Index, tmp_path: Path) -> None:
    path = photo(tmp_path / "photos" / "a.jpg")
    path.with_name("b.jpg.xmp").write_text(XMP)
    (skip,) = index.add(path.parent).skipped
    assert (Path(skip.path).name, skip.reason) == ("b.jpg.xmp", "no photo or video that it is about lies beside it")


def iptc(*parts: tuple[int, bytes]) -> bytes:
    sets = b"".join(b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(text)) + text for number, text in parts)
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(sets)) + sets + b"\0" * (len(sets) % 2)
    return b"\xff\xed" + struct.pack(">H", len(block) + 2) + block


def test_a_picture_says_it_in_other_ways_too(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    path = photo(folder / "iptc.jpg")
    data = path.read_bytes()
    path.write_bytes(data[:2] + iptc((55, b"19650709"), (60, b"101112+0100"), (25, b"wedding")) + data[2:])
    stars = Image.Exif()
    stars[0x4746] = 5
    photo(folder / "windows.jpg", exif=stars)
    photo(folder / "people.webp", xmp=packet(bag("Iptc4xmpExt:PersonInImage", "Ada")).encode())
    index.add(folder)
    assert named(index, "after:1965-07-09T10:11 before:1965-07-09T10:12") == named(index, '"wedding"') == ["iptc.jpg"]
    assert named(index, "rating:5") == ["windows.jpg"]
    assert named(index, '"Ada"') == ["people.webp"]


def undescribed(index: Index) -> int:
    return int(
        index._directory.catalogue.sql.execute("SELECT count(*) FROM contents WHERE is_described = 0").fetchone()[0]
    )


def forget(index: Index) -> None:
    """As an index was before it knew places and ratings of XMP."""
    with index._directory.writing() as writable, writable.catalogue.transaction():
        writable.catalogue.sql.execute(
            "UPDATE contents SET latitude = NULL, longitude = NULL, rating = NULL, description = NULL, is_described = 0"
        )


def test_an_existing_index_learns_it_from_the_headers(
    index: Index, folder: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(folder / "away.jpg", xmp=XMP.encode())
    index.add(folder)
    away = (folder / "away.jpg").rename(folder.parent / "away.jpg")
    forget(index)
    assert "embedded.jpg" not in named(index, "near:46.5,7.9,5km")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("a picture was decoded"))
    encoded = encoder.encoded_images
    index.add(folder / "embedded.jpg")
    assert "embedded.jpg" in named(index, "near:46.5,7.9,5km")
    assert "embedded.jpg" in named(index, '"zanzibarella" rating:4')
    index.add(folder)
    assert undescribed(index) == 0
    assert encoder.encoded_images == encoded
    assert away.exists()


def test_one_that_cannot_be_opened_any_more_is_left_as_it_was(index: Index, tmp_path: Path) -> None:
    path = photo(tmp_path / "photos" / "a.jpg", xmp=XMP.encode())
    index.add(path.parent)
    forget(index)
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    for _ in range(2):
        assert index.add(path.parent).unchanged == 1
    assert undescribed(index) == 0


def test_what_an_older_version_showed_grey_is_read_again(index: Index, tmp_path: Path, encoder: ColourEncoder) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    signal = coded(light_of(scene()), PQ)
    for suffix, make in FILES.items():
        (folder / f"hdr {suffix[1:]}{suffix}").write_bytes(make(signal, (9, PQ)))
        (folder / f"plain {suffix[1:]}{suffix}").write_bytes(make(signal, (1, 1)))
    index.add(folder)
    forget(index)
    before = encoder.encoded_images
    report = index.add(folder)
    assert (report.updated, report.unchanged) == (5, 5)
    assert encoder.encoded_images - before == 5
    assert index.verify().clean
    assert index.add(folder).unchanged == 10


@pytest.mark.parametrize("name", ["a.jpg.xmp", "a.XMP", "a.jpg.json", "a.jpg.supplemental-metadata.json"])
def test_a_watch_that_sees_the_sidecar_alone_finds_its_photo(
    index: Index, tmp_path: Path, encoder: ColourEncoder, name: str
) -> None:
    path = photo(tmp_path / "photos" / "a.jpg")
    photo(path.with_name("b.jpg"))
    index.add(path.parent)
    sidecar = path.with_name(name)
    for content, found in ((XMP if "json" not in name else TAKEOUT, ["a.jpg"]), (None, [])):
        if content is None:
            sidecar.unlink()
        else:
            sidecar.write_text(content)
        assert ingest(index._directory, encoder, [sidecar], changes=True).updated == 1
        assert named(index, "near:46.5,7.9,5km") == found
