"""DNG files with a sensor's data, as Adobe's converter lays them out; LibRaw is the judge where rawpy is there.

First directory: a small preview. Its sub-directories: the mosaic of the sensor, and a large preview.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.core.errors import MediaError
from mmsearch.media import DecodeOptions
from mmsearch.media.image.reader import ImageDecoder

SIZE = (640, 480)
JPEG, YCBCR, MOSAIC = 7, 6, 32803
COLOURS = [(19549, 10000), (-7877, 10000), (-2582, 10000), (-5724, 10000), (10121, 10000), (1917, 10000),
           (-1267, 10000), (-110, 10000), (6621, 10000)]  # fmt: skip
"""A colour matrix (XYZ to the camera's space), which LibRaw wants to see."""


def scene() -> Image.Image:
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    waves = np.stack([np.sin(x / 40), np.cos(y / 50), np.sin((x + y) / 70)], axis=-1) * 90 + 128
    return Image.fromarray(waves.astype(np.uint8))


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def mosaic(picture: Image.Image) -> np.ndarray:
    """What a sensor under red, green, green, blue filters sees, 12 bits."""
    pixels, seen = np.asarray(picture).astype(np.uint16) * 16, np.zeros(SIZE[::-1], np.uint16)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        seen[row::2, column::2] = pixels[row::2, column::2, channel]
    return seen


class Tiff:
    """Writes directories behind the data that they name (TIFF 6.0, section 2)."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))

    def put(self, data: bytes) -> int:
        self.data.extend(bytes(len(self.data) % 2))
        self.data.extend(data)
        return len(self.data) - len(data)

    def directory(self, tags: dict[int, tuple[int, Any]]) -> int:
        rows = []
        for tag, (kind, values) in sorted(tags.items()):
            if kind == 2:
                count, data = len(values) + 1, values.encode() + b"\0"
            elif kind in {5, 10}:
                count, flat = len(values), [number for value in values for number in value]
                data = struct.pack(f"{self.order}{len(flat)}{'L' if kind == 5 else 'l'}", *flat)
            else:
                layout = {1: "B", 3: "H", 4: "L"}[kind]
                count, data = len(values), struct.pack(f"{self.order}{len(values)}{layout}", *values)
            value = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(self.order + "L", self.put(data))
            rows.append(struct.pack(self.order + "HHL", tag, kind, count) + value)
        return self.put(struct.pack(self.order + "H", len(rows)) + b"".join(rows) + bytes(4))

    def picture(self, data: bytes, size: tuple[int, int], kind: tuple[int, int]) -> dict[int, Any]:
        compression, meaning = kind
        channels = 1 if meaning == MOSAIC else 3
        return {254: (4, [0 if meaning == MOSAIC else 1]), 256: (4, [size[0]]), 257: (4, [size[1]]),
                258: (3, [16] if channels == 1 else [8, 8, 8]), 259: (3, [compression]), 262: (3, [meaning]),
                273: (4, [self.put(data)]), 277: (3, [channels]), 278: (4, [size[1]]), 279: (4, [len(data)]),
                284: (3, [1])}  # fmt: skip


def dng(order: str, orientation: int, *, previews: bool = True) -> tuple[bytes, bytes]:
    """The file, and its large preview."""
    tiff, picture = Tiff(order), scene()
    large = jpeg(picture)
    raw = tiff.picture(mosaic(picture).astype(order + "u2").tobytes(), SIZE, (1, MOSAIC))
    raw |= {33421: (3, [2, 2]), 33422: (1, [0, 1, 1, 2]), 50714: (3, [0]), 50717: (4, [4095])}
    camera = {271: (2, "Test"), 272: (2, "Test Camera"), 274: (3, [orientation]), 306: (2, "2021:05:06 07:08:09"),
              50706: (1, [1, 4, 0, 0]), 50707: (1, [1, 1, 0, 0]), 50708: (2, "Test Camera"), 50721: (10, COLOURS),
              50728: (5, [(1, 1)] * 3), 50778: (3, [21])}  # fmt: skip
    if previews:
        below = [tiff.directory(raw), tiff.directory(tiff.picture(large, SIZE, (JPEG, YCBCR)))]
        small = tiff.picture(jpeg(picture.resize((128, 96))), (128, 96), (JPEG, YCBCR))
        first = tiff.directory(small | camera | {330: (4, below)})
    else:
        first = tiff.directory(raw | camera)
    tiff.data[4:8] = struct.pack(order + "L", first)
    return bytes(tiff.data), large


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_large_preview_stands_for_the_sensors_data(tmp_path: Path, order: str, orientation: int) -> None:
    data, large = dng(order, orientation)
    decoded = ImageDecoder().decode(tmp_path / "a.dng", DecodeOptions(min_side=120), data)
    [segment] = decoded.segments
    upright = Image.open(io.BytesIO(large)).transpose(Image.Transpose.ROTATE_270) if orientation == 6 else scene()
    assert (decoded.info.width, decoded.info.height) == upright.size
    assert (decoded.info.camera, decoded.info.taken_at) == ("Test Camera", "2021-05-06T07:08:09")
    assert segment.image is not None
    shown = np.asarray(segment.image.resize((64, 64)), np.float32)
    assert np.abs(shown - np.asarray(upright.resize((64, 64)), np.float32)).mean() < 3


def test_sensors_data_alone_is_refused(tmp_path: Path) -> None:
    data, _ = dng("<", 1, previews=False)
    with pytest.raises(MediaError, match=r"^no preview picture in this camera RAW file; export it as JPEG[^(]*$"):
        ImageDecoder().decode(tmp_path / "a.dng", DecodeOptions(), data)


@pytest.mark.parametrize("order", ["<", ">"])
def test_libraw_takes_these_files_for_camera_raw_and_finds_the_same_preview(tmp_path: Path, order: str) -> None:
    rawpy = pytest.importorskip("rawpy", reason="the judge of this test is LibRaw: pip install rawpy")
    data, large = dng(order, 6)
    (tmp_path / "a.dng").write_bytes(data)
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        assert raw.sizes.flip == 6
        developed = raw.postprocess(half_size=True, use_camera_wb=True)
        assert developed.shape == (320, 240, 3)
        assert raw.extract_thumb().data.endswith(large[-1000:])
    (tmp_path / "b.dng").write_bytes(dng(order, 1, previews=False)[0])
    with rawpy.imread(str(tmp_path / "b.dng")) as raw, pytest.raises(rawpy.LibRawNoThumbnailError):
        raw.extract_thumb()
