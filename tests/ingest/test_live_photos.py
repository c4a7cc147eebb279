"""Live Photos: a photo and its clip are one document; a video that only has a photo's name is its own."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from mmsearch.api import Index
from mmsearch.media import live_photos
from mmsearch.sources import walking

IDENTIFIER = "6C2B1F6E-5E0D-4B1A-9C77-0C9D6E8F1A2B"


def clip(path: Path, seconds: float = 2.0, identifier: str | None = None) -> Path:
    shade = sum(path.name.encode()) % 200
    with av.open(str(path), "w", format="mov", options={"movflags": "use_metadata_tags"}) as container:
        if identifier is not None:
            container.metadata["com.apple.quicktime.content.identifier"] = identifier
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(round(10 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def maker_note(identifier: str) -> bytes:
    text = identifier.encode() + b"\0"
    entry = struct.pack(">HHII", 0x0011, 2, len(text), 16 + 12 + 4)
    return b"Apple iOS\0\0\1MM" + struct.pack(">H", 1) + entry + bytes(4) + text


def photo(path: Path, identifier: str | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(sum(path.name.encode())).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    image, exif = Image.fromarray(noise).resize((160, 120)), Image.Exif()
    if identifier is not None:
        exif.get_ifd(0x8769)[0x927C] = maker_note(identifier)
    if path.suffix.lower() == ".heic":
        pillow_heif.from_pillow(image).save(path, exif=exif.tobytes())
    else:
        image.save(path, "JPEG", exif=exif)
    return path


def documents(index: Index) -> list[str]:
    rows = index._directory.catalogue.sql.execute("SELECT path FROM documents ORDER BY path")
    return [path for (path,) in rows]


PAIRS: dict[str, tuple[str, str, float, str | None, str | None]] = {
    "as the camera writes them": ("IMG_1.HEIC", "IMG_1.MOV", 3.0, IDENTIFIER, IDENTIFIER),
    "converted to JPEG": ("IMG_1.JPG", "IMG_1.MOV", 3.0, None, IDENTIFIER),
    "without any identifier": ("IMG_1.HEIC", "IMG_1.MOV", 2.0, None, None),
    "with small suffixes": ("a.jpeg", "a.mov", 1.5, None, None),
    "as Google exports them": ("IMG_1.HEIC", "IMG_1.MP4", 2.0, IDENTIFIER, None),
    "a long one with its identifier": ("IMG_1.HEIC", "IMG_1.MOV", 6.0, IDENTIFIER, IDENTIFIER.lower()),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_pair_is_one_document(index: Index, tmp_path: Path, kind: str) -> None:
    name, other, seconds, photos, clips = PAIRS[kind]
    path = photo(tmp_path / "photos" / name, photos)
    clip(path.with_name(other), seconds, clips)
    report = index.add(path.parent)
    assert (report.indexed, report.skipped) == (1, ())
    assert documents(index) == [name]
    assert index.add(path.parent).unchanged == 1
    assert index.add(path).unchanged == 1, "also where it is named by itself"
    assert index.verify().clean


TWO: dict[str, tuple[str, str, float, str | None, str | None]] = {
    "too long": ("a.jpg", "a.mov", 5.0, None, None),
    "of another photo": ("a.heic", "a.mov", 2.0, IDENTIFIER, "another"),
    "of another name": ("a.jpg", "b.mov", 2.0, None, None),
    "in other letters": ("a.jpg", "A.mov", 2.0, None, None),
    "of another kind": ("a.jpg", "a.mkv", 2.0, None, None),
}


@pytest.mark.parametrize("kind", TWO)
def test_a_video_of_its_own_is_a_document(index: Index, tmp_path: Path, kind: str) -> None:
    name, other, seconds, photos, clips = TWO[kind]
    path = photo(tmp_path / "photos" / name, photos)
    clip(path.with_name("made.mov"), seconds, clips).rename(path.with_name(other))
    if other.endswith(".mkv"):
        path.with_name(other).unlink()
        with av.open(str(path.with_name(other)), "w") as container:
            stream: Any = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
            container.mux(stream.encode(None))
    assert index.add(path.parent).indexed == 2
    assert index.add(path.parent).unchanged == 2


def test_headers_are_looked_at_once(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    for name, seconds in (("pair", 2.0), ("two", 6.0)):
        photo(folder / f"{name}.jpg")
        clip(folder / f"{name}.mov", seconds)
    index.add(folder)
    monkeypatch.setattr(live_photos, "look_at_clip", lambda *_: pytest.fail("a header was read again"))
    assert index.add(folder).unchanged == 3


def test_pairs_come_and_go(index: Index, tmp_path: Path) -> None:
    path = photo(tmp_path / "photos" / "a.jpg")
    index.add(path.parent)
    movie = clip(path.with_name("a.mov"))
    assert (index.add(path.parent).updated, documents(index)) == (1, ["a.jpg"])
    away = path.rename(tmp_path / "a.jpg")
    index.add(path.parent)
    assert documents(index) == ["a.mov"], "without its photo the clip is what there is"
    away.rename(path)
    report = index.add(path.parent)
    assert (documents(index), report.indexed, report.removed) == (["a.jpg"], 1, 1)
    movie.unlink()
    assert (index.add(path.parent).updated, documents(index)) == (1, ["a.jpg"])


def test_a_clip_is_kept_where_its_photo_cannot_be_read(index: Index, tmp_path: Path) -> None:
    path = photo(tmp_path / "photos" / "a.jpg")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    clip(path.with_name("a.mov"))
    index.add(path.parent)
    assert len(index.add(path.parent).skipped) == 1
    assert documents(index) == ["a.mov"]


def test_an_index_that_holds_both_gives_up_the_clip(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    for number in range(12):
        photo(folder / f"IMG_{number}.heic")
        clip(folder / f"IMG_{number}.mov")
    with monkeypatch.context() as older:
        older.setattr(walking, "clips_of", lambda *_: {})
        assert index.add(folder).indexed == 24
    report = index.add(folder)
    assert (report.updated, report.removed, report.absent) == (12, 12, 0)
    assert len(documents(index)) == 12
    assert index.add(folder).unchanged == 12
