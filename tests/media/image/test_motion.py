"""Motion photos: the picture and what its clip shows besides are one document."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from mmsearch.api import Index
from mmsearch.media.base import DecodeOptions
from mmsearch.media.image.reader import ImageDecoder
from mmsearch.query.question import load_picture
from tests.support.colours import COLOURS, ColourEncoder

OPTIONS = DecodeOptions(min_side=32)
RED, BLUE = (tuple(COLOURS[name]) for name in ("red", "blue"))


def clip(*colours: tuple[int, ...], form: str = "mp4") -> bytes:
    """A second of each colour."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10 * len(colours)):
            pixels = np.full((48, 64, 3), colours[number // 10], np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), RED).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def heic() -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), RED)).save(buffer, quality=95)
    return buffer.getvalue()


def boxed(data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + b"mpvd" + data


SEF = b"\0\0\x30\x0aMotionPhoto_Data" + bytes(40) + b"SEFT"
FILES = {
    "MVIMG_1.jpg": jpeg() + clip(RED, BLUE),
    "PXL_1.MP.jpg": jpeg() + clip(RED, BLUE, form="mov"),
    "samsung.jpg": jpeg() + b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + clip(RED, BLUE) + SEF,
    "IMG_1.HEIC": heic() + boxed(clip(RED, BLUE)),
    "last.heic": heic() + struct.pack(">I", 0) + b"mpvd" + clip(RED, BLUE),
}


def segments(name: str, data: bytes) -> list[tuple[bool, str]]:
    """Of each segment, whether it has a time, and its colour."""
    found = []
    for segment in ImageDecoder().decode(Path(name), OPTIONS, data).segments:
        assert segment.image is not None
        red, _, blue = np.asarray(segment.image).reshape(-1, 3).mean(axis=0)
        found.append((segment.start_s is not None, "red" if red > blue else "blue"))
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_picture_comes_first_then_what_is_new_in_the_clip(name: str) -> None:
    assert segments(name, FILES[name]) == [(False, "red"), (True, "blue")]


@pytest.mark.parametrize(
    "data",
    [
        jpeg(),
        jpeg() + clip(RED),
        jpeg() + clip(RED, BLUE)[:200],
        jpeg() + b"\0\0\0\x18ftypmp42" + bytes(5000),
        jpeg() + SEF,
        heic() + boxed(b""),
        heic() + boxed(bytes(500)),
        heic() + struct.pack(">I", 2**31) + b"mpvd",
    ],
)
def test_a_clip_that_shows_nothing_new_or_cannot_be_read_adds_nothing(data: bytes) -> None:
    assert segments("a.jpg", data) == [(False, "red")]


def test_its_moments_are_found_and_shown(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("MVIMG_1.jpg", "IMG_1.HEIC"):
        (folder / name).write_bytes(FILES[name])
    report = index.add(folder)
    assert (report.indexed, report.segments, report.skipped) == (2, 4, ())
    hits = index.search("blue", k=4, collapse=False)
    assert {Path(hit.path).name for hit in hits} == {"MVIMG_1.jpg", "IMG_1.HEIC"}
    assert all(hit.modality == "image" and hit.start_s is not None for hit in hits)
    assert all(hit.start_s is None for hit in index.search("red", k=4))
    for hit in hits:
        red, _, blue = np.asarray(load_picture(Path(hit.path), at_s=hit.start_s)).reshape(-1, 3).mean(axis=0)
        assert blue > red
        red, _, blue = np.asarray(load_picture(Path(hit.path))).reshape(-1, 3).mean(axis=0)
        assert red > blue
    assert index.verify().clean


def test_those_that_an_older_version_indexed_are_read_again(
    index: Index, tmp_path: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(FILES["MVIMG_1.jpg"])
    (folder / "b.jpg").write_bytes(jpeg())
    with monkeypatch.context() as older:
        older.setattr("mmsearch.media.image.reader.clip_of", lambda *_: None)
        assert index.add(folder).segments == 2
    with index._directory.writing() as writable, writable.catalogue.transaction():
        writable.catalogue.sql.execute("UPDATE contents SET is_described = 0")
    report = index.add(folder)
    assert (report.updated, report.unchanged, report.segments) == (1, 1, 2)
