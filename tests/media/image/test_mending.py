"""Pictures that are whole are read, whatever is wrong beside them; what lacks a part of its picture is refused."""

from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from mmsearch.api import Index
from mmsearch.core.errors import MediaError
from mmsearch.ingest import options
from mmsearch.media.base import DecodeOptions
from mmsearch.media.image.reader import ImageDecoder

OPTIONS = DecodeOptions(min_side=64)


def photo(width: int = 320, height: int = 240, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height)).convert(mode)


def encoded(image: Image.Image, format_: str, **extra: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **extra)
    return buffer.getvalue()


def pictures(data: bytes) -> list[np.ndarray]:
    decoded = ImageDecoder().decode(Path("a"), OPTIONS, data)
    return [np.asarray(segment.image) for segment in decoded.segments]


def same(data: bytes, whole: bytes) -> bool:
    found, expected = pictures(data), pictures(whole)
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


# PNG


def chunk(kind: bytes, data: bytes, *, checksum: bytes | None = None) -> bytes:
    found = struct.pack(">I", zlib.crc32(kind + data)) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + found


PNG = encoded(photo(), "PNG")
BAD = b"\1\2\3\4"
BIG_TEXT = zlib.compress(b"{}" * 1_000_000)
SIDE = {
    "a text that unpacks to 2 MB": chunk(b"iTXt", b"workflow\0\1\0\0\0" + BIG_TEXT),
    "a text of 3 MB": chunk(b"tEXt", b"workflow\0" + bytes(range(1, 255)) * 12_000),
    "an old text that unpacks to 2 MB": chunk(b"zTXt", b"workflow\0\0" + BIG_TEXT),
    "80 texts": b"".join(chunk(b"zTXt", b"k%d\0\0" % n + zlib.compress(b"a" * 900_000)) for n in range(80)),
    "a text packed in an unknown way": chunk(b"zTXt", b"workflow\0\7" + BIG_TEXT),
    "a wrong checksum of a text": chunk(b"tEXt", b"Comment\0hello", checksum=BAD),
    "a wrong checksum of a date": chunk(b"tIME", bytes(7), checksum=BAD),
    "a wrong checksum of a profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(b"x" * 100), checksum=BAD),
    "a wrong checksum of EXIF": chunk(b"eXIf", b"MM\0*\0\0\0\10\0\0", checksum=BAD),
    "a profile of 2 MB of nothing": chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2_000_000))),
    "a profile packed in an unknown way": chunk(b"iCCP", b"p\0\5" + zlib.compress(bytes(200))),
    "a gamma that is cut": chunk(b"gAMA", b"\0\0"),
    "chromaticities that are cut": chunk(b"cHRM", b"\0" * 8),
    "a resolution that is cut": chunk(b"pHYs", b"\0"),
    "a chunk of its own": chunk(b"prVt", bytes(40_000_000)),
    "an animation that is cut": chunk(b"acTL", b"\0"),
    "a transparency that is cut": chunk(b"tRNS", b"\0\0"),
}


@pytest.mark.parametrize("what", SIDE)
@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_png_is_shown_whatever_stands_beside_the_picture(what: str, where: str) -> None:
    place = 33 if where == "before" else PNG.index(b"IEND") - 4
    assert same(PNG[:place] + SIDE[what] + PNG[place:], PNG)


def test_what_is_sound_beside_the_picture_is_kept() -> None:
    image = photo(80, 80, "P")
    image.info["transparency"] = 3
    data = encoded(image, "PNG", transparency=3)
    description = chunk(b"tEXt", b"Description\0a lake")
    spoilt = data[:33] + description + SIDE["a wrong checksum of a text"] + data[33:]
    assert same(spoilt, data)
    assert ImageDecoder().decode(Path("a.png"), OPTIONS, spoilt).info.description == "a lake"


def test_a_large_colour_profile_still_counts() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The red and green of sRGB exchanged: pictures with and without this profile cannot look alike.
    other = srgb.replace(b"rXYZ", b"TEMP").replace(b"gXYZ", b"rXYZ").replace(b"TEMP", b"gXYZ")
    other = other.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    large = struct.pack(">I", len(other) + 2_000_000) + other[4:] + np.random.default_rng(0).bytes(2_000_000)
    expected = encoded(photo(), "PNG", icc_profile=other)
    assert not same(expected, PNG)
    spoilt = PNG[:33] + chunk(b"iCCP", b"p\0\0" + zlib.compress(large)) + PNG[33:]
    assert same(spoilt, expected)


def test_a_bomb_beside_the_picture_costs_no_memory() -> None:
    bomb = chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(300_000_000)))
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(300_000_000)))
    data = PNG[:33] + bomb + profile + PNG[33:]
    tracemalloc.start()
    try:
        assert same(data, PNG)
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def test_animated_pngs_keep_their_frames() -> None:
    frames = [photo(60, 40), photo(60, 40).rotate(180), Image.new("RGB", (60, 40), "red")]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100)
    assert len(pictures(data)) == 3
    assert same(data[:33] + SIDE["a wrong checksum of a text"] + data[33:], data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:16] + b"\1" + data[17:],  # the checksum of the header
        lambda data: data[: len(data) // 2],
        lambda data: data[:33] + chunk(b"tEXt", b"a\0b", checksum=BAD) + data[33 : len(data) // 2],
        lambda data: data[:33] + chunk(b"ABCD", b"critical, and unknown", checksum=BAD) + data[33:],
    ],
)
def test_a_png_without_its_picture_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(MediaError, match=r"^(damaged|truncated) PNG"):
        pictures(spoil(PNG))


# JPEG


JPEGS: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "baseline": (photo(600, 450), {}),
    "progressive": (photo(600, 450), {"progressive": True}),
    "grey": (photo(300, 200, "L"), {"quality": 40}),
    "of four inks": (photo(300, 200, "CMYK"), {}),
    "of a phone": (photo(4000, 3000), {"quality": 60}),
    "with restart markers": (photo(600, 450), {"restart_marker_blocks": 5}),
    "tiny": (photo(8, 8), {}),
}


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_without_end_marker_is_whole(kind: str, missing: int) -> None:
    image, extra = JPEGS[kind]
    data = encoded(image, "JPEG", **extra)
    assert same(data[:-missing], data)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "with restart markers"])
def test_a_jpeg_that_lacks_a_part_is_refused(kind: str, share: float) -> None:
    image, extra = JPEGS[kind]
    data = encoded(image, "JPEG", **extra)
    with pytest.raises(MediaError, match="truncated JPEG: the file ends before its picture does"):
        pictures(data[: int(share * len(data))])


# WebP


@pytest.mark.parametrize("extra", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\10\0\0"}])
@pytest.mark.parametrize("size", [0, 10, -2, 1000, 2**31])
def test_a_webp_with_a_wrong_size_in_its_header_is_whole(extra: dict[str, Any], size: int) -> None:
    data = encoded(photo(), "WEBP", **extra)
    wrong = size if abs(size) in {0, 10, 2**31} else len(data) - 8 + size
    assert same(data[:4] + struct.pack("<I", wrong) + data[8:], data)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_webp_that_is_cut_is_refused(share: float) -> None:
    data = encoded(photo(), "WEBP")
    with pytest.raises(MediaError, match=r"^(damaged|truncated) WEBP"):
        pictures(data[: int(share * len(data))])


# All


@pytest.mark.parametrize(
    ("format_", "tail"),
    itertools.product(
        ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"], [bytes(1000), b"\xff\xd8junk\x89PNG" * 99]
    ),
)
def test_bytes_behind_the_picture_do_no_harm(format_: str, tail: bytes) -> None:
    data = encoded(photo(), format_)
    assert same(data + tail, data)


def test_a_gif_without_trailer_is_whole() -> None:
    data = encoded(photo(), "GIF")
    assert same(data[:-1], data)
    assert same(data[:-2], data)


def test_what_an_older_version_refused_is_tried_again(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(encoded(photo(), "JPEG")[:-2])
    with monkeypatch.context() as older:
        older.setattr("mmsearch.media.image.reader.mended", lambda *_: [])
        older.setattr(options, "MENDING", 0)
        assert len(index.add(photos).skipped) == 1
        assert len(index.add(photos).skipped) == 1
    assert index.add(photos).indexed == 1
