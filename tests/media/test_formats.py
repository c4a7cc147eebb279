"""The table of formats: nothing in it twice, all of it there, and a format of somebody else's."""

from __future__ import annotations

import importlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mmsearch.media import DECODERS, SUFFIXES, Decoder, decoder_for
from mmsearch.media.formats import FORMATS, IMAGE, RAW, SOUND, TEXT, VIDEO, format_by_content, format_by_suffix, formats
from mmsearch.training.pair_sources import IMAGE_SUFFIXES
from tests.support.colours import save_colour

ISO = b"\0\0\0\x1cftyp%s\0\0\0\0%s"


def test_no_suffix_and_no_name_stands_twice() -> None:
    suffixes = [suffix for row in formats() for suffix in row.suffixes]
    assert len(suffixes) == len(set(suffixes)) and set(suffixes) == SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)
    assert {row.decoder for row in formats()} == {IMAGE, VIDEO, TEXT, SOUND}
    assert len(DECODERS) == 4 and frozenset().union(*(decoder.suffixes for decoder in DECODERS)) == SUFFIXES


def test_whatever_reads_an_image_is_there() -> None:
    for row in formats(IMAGE):
        if row.reader != RAW:
            module, _, class_ = row.reader.partition(":")
            assert callable(getattr(importlib.import_module(module), class_)), row.name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (ISO % (b"heic", b"mif1heic"), "HEIF"), (ISO % (b"mif1", b"mif1heic"), "HEIF"),
        (ISO % (b"avif", b"mif1"), "AVIF"),
        (ISO % (b"mif1", b"mif1avif"), "AVIF"), (ISO % (b"crx ", b"crx isom"), "CR3"), (ISO % (b"mp42", b"isom"), None),
        (b"\xff\xd8\xff\xe0", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF89a", "GIF"), (b"RIFF\1\2\3\4WEBP", "WEBP"),
        (b"II\x2a\0", "TIFF"), (b"IIU\0", "RAW"), (b"FUJIFILMCCD-RAW", "RAW"), (b"P6 3 3", "PPM"),
        (b"BM\1\2\3\4" + bytes(4), "BMP"),
        (b"\xff\x4f\xff\x51", "JPEG2000"), (b"", None), (b"hello", None), (b"RIFF\1\2\3\4AVI ", None),
    ],
)  # fmt: skip
def test_images_are_known_by_their_content(header: bytes, name: str | None) -> None:
    found = format_by_content(header, IMAGE)
    assert (found.name if found else None) == name


def test_suffixes_count_in_any_case() -> None:
    assert format_by_suffix(".JPEG") is FORMATS["JPEG"] and format_by_suffix(".exe") is None
    assert isinstance(decoder_for(Path("a.MKV")), Decoder) and decoder_for(Path("a")) is None


def test_training_takes_the_same_images_but_for_raw() -> None:
    assert {".jpe", ".avif", ".jp2", ".hif"} <= IMAGE_SUFFIXES and ".nef" not in IMAGE_SUFFIXES


def test_a_format_from_an_installed_package(tmp_path: Path) -> None:
    """It is walked, read and told by its content, from one row."""
    site = tmp_path / "site"
    info = site / "acme_qoi-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-qoi\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mmsearch.media]\nqoi = acme_qoi:QOI\n")
    (site / "acme_qoi.py").write_text(
        "from mmsearch.media.formats import IMAGE, Format\n"
        "QOI = Format('QOI', ('.qoi',), IMAGE, 'PIL.QoiImagePlugin:QoiImageFile', rb'qoif')\n"
    )
    folder = tmp_path / "photos"
    save_colour(folder / "b.png", "blue")
    pixels = b"".join(b"\xfe\xdc" + bytes([30, n]) for n in range(64))
    (folder / "a.qoi").write_bytes(b"qoif" + struct.pack(">IIBB", 8, 8, 3, 0) + pixels + bytes(7) + b"\1")
    (folder / "a.txt").write_text("beside it")
    environment = {**os.environ, "MMSEARCH_HOME": str(tmp_path / "home")}

    def indexed(*path: Path) -> dict[str, list[dict[str, str]]]:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (*path, Path.cwd())))
        code = (
            "import json, sys; from mmsearch import Index; from tests.support.colours import ColourEncoder\n"
            "with Index.open(sys.argv[1], create=True, encoder=ColourEncoder()) as index:\n"
            "    report = index.add(sys.argv[2])\n"
            "    hits = index.search('red', k=3)\n"
            "    print(json.dumps([[s.reason for s in report.skipped], [hit.path for hit in hits]]))\n"
        )
        index = str(tmp_path / f"index{len(path)}")
        said = subprocess.check_output([sys.executable, "-c", code, index, str(folder)], env=environment, text=True)
        return json.loads(said)

    skipped, hits = indexed()
    assert skipped == ["files of type .qoi are not supported"]
    assert [Path(hit).name for hit in hits] == ["b.png"]
    skipped, hits = indexed(site)
    assert skipped == [] and [Path(hit).name for hit in hits] == ["a.qoi", "b.png"]
