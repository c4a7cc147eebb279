"""A file whose bytes are at hand gives what the file on disk gives, and nothing is looked for on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mmsearch.core.errors import MediaError
from mmsearch.media import DecodeOptions, decoder_for

OPTIONS = DecodeOptions(min_side=16)


def write_video(path: Path, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(60):
            grey = np.full((48, 64, 3), 40 + 80 * (number // 30), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        container.mux(stream.encode(None))


def write(path: Path) -> Path:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    if path.suffix in {".mp4", ".mov"}:
        write_video(path, "libx264")
    elif path.suffix in {".mkv", ".avi", ".ts", ".mpg"}:
        write_video(path, "mpeg2video")
    elif path.suffix == ".csv":
        path.write_text("caption\na dog\na cat\n")
    elif path.suffix in {".txt", ".md"}:
        path.write_text("# A lake\n\nThe lake is cold.")
    else:
        picture.save(path)
    return path


def described(path: Path, data: bytes | None) -> list[Any]:
    decoder = decoder_for(path)
    assert decoder is not None
    decoded = decoder.decode(path, OPTIONS, data)
    segments = [
        (None if one.image is None else one.image.tobytes(), one.text, one.start_s, one.end_s)
        for one in decoded.segments
    ]
    return [decoded.info, decoded.final_info() if decoded.final_info else None, *segments]


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.png", "a.tif", "a.gif", "a.webp", "a.mp4", "a.mov", "a.mkv", "a.avi", "a.ts", "a.mpg", "a.txt",
             "a.md", "a.csv"],
)  # fmt: skip
def test_bytes_at_hand_give_what_the_file_gives(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    from_disk = described(path, None)
    data = path.read_bytes()
    path.unlink()
    assert len(from_disk) > 2
    assert described(path, data) == from_disk


@pytest.mark.parametrize("name", ["a.jpg", "a.mp4", "a.txt", "a.csv"])
@pytest.mark.parametrize(("data", "reason"), [(b"", "empty file|no row"), (None, "cannot be read")])
def test_nothing_at_hand_is_a_reason(tmp_path: Path, name: str, data: bytes | None, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        described(tmp_path / name, data)
