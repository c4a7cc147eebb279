"""High dynamic range looks like the plain picture; whatever is not said to be HDR keeps each of its pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from mmsearch.core.errors import MediaError
from mmsearch.media import decoder_for
from mmsearch.media.base import DecodeOptions
from mmsearch.media.hdr import HLG, PQ, WHITE, Coding, to_srgb

# BT.2087-0: linear BT.709 to linear BT.2020.
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def scene(width: int = 192, height: int = 128) -> np.ndarray:
    """Bright and dark, grey and colourful, smooth: uint8 (height, width, 3) in sRGB."""
    noise = np.random.default_rng(3).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def light_of(picture: np.ndarray, white: float = WHITE) -> np.ndarray:
    """Luminances in cd/m² on BT.2020 primaries."""
    coded = picture / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return np.maximum(linear @ TO_2020.T, 0) * white


def coded(light: np.ndarray, transfer: int) -> np.ndarray:
    """The signal from 0 to 1, by the inverse of what a decoder does."""
    if transfer == PQ:
        power = (light / 10_000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    display = light / 1000
    luminance = np.maximum(display @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
    scene_light = display * luminance ** (-0.2 / 1.2)
    log = 0.17883277 * np.log(np.maximum(12 * scene_light - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene_light <= 1 / 12, np.sqrt(3 * scene_light), log).clip(0, 1)


def with_highlights(light: np.ndarray) -> np.ndarray:
    """A lamp of 1,000 cd/m² in a corner."""
    light = light.copy()
    light[:20, :20] = 1000
    return light


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_what_is_not_brighter_than_white_looks_as_it_did(transfer: int, depth: Any) -> None:
    picture = scene()
    signal = np.round(coded(light_of(picture), transfer) * np.iinfo(depth).max).astype(depth)
    error = np.abs(to_srgb(signal, Coding(9, transfer)).astype(int) - picture)
    assert error.mean() < (3 if depth is np.uint8 else 1)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_highlights_are_white_and_the_rest_is_still_seen(transfer: int) -> None:
    picture = scene()
    signal = np.round(coded(with_highlights(light_of(picture)), transfer) * 65535).astype(np.uint16)
    found = to_srgb(signal, Coding(9, transfer)).astype(int)
    assert found[5, 5].min() > 240
    rest = np.s_[30:, 30:]
    assert np.corrcoef(found[rest].ravel(), picture[rest].ravel())[0, 1] > 0.98
    assert np.abs(found[rest].mean() - picture[rest].mean()) < 30, "no grey veil, nor night"


def test_primaries_are_those_that_the_file_names() -> None:
    red = np.full((4, 4, 3), 0.0)
    red[..., 0] = WHITE
    signal = np.round(coded(red, PQ) * 65535).astype(np.uint16)
    plain, wide = (to_srgb(signal, Coding(primaries, PQ))[0, 0] for primaries in (1, 9))
    assert plain.tolist() == [255, 0, 0]
    assert wide.tolist() == [255, 0, 0], "outside of sRGB: its nearest"
    grey = np.full((2, 2, 3), 30_000, np.uint16)
    for primaries in (1, 9, 12, 2):
        assert np.ptp(to_srgb(grey, Coding(primaries, PQ))) <= 1, "grey is grey"


# Files


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(signal: np.ndarray, coding: tuple[int, int] | None) -> bytes:
    height, width, _ = signal.shape
    rows = b"".join(b"\0" + row.tobytes() for row in np.round(signal * 65535).astype(">u2"))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    said = b"" if coding is None else chunk(b"cICP", bytes([*coding, 0, 1]))
    return b"\x89PNG\r\n\x1a\n" + header + said + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def image(signal: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(signal * 255).astype(np.uint8))


def heic(signal: np.ndarray, coding: tuple[int, int] | None) -> bytes:
    said = {} if coding is None else {"color_primaries": coding[0], "transfer_characteristics": coding[1]}
    buffer = io.BytesIO()
    more: dict[str, Any] = {**said, "matrix_coefficients": 9 if said else 1, "full_range_flag": 1}
    pillow_heif.from_pillow(image(signal)).save(buffer, quality=95, **more)
    return buffer.getvalue()


def avif(signal: np.ndarray, coding: tuple[int, int] | None) -> bytes:
    buffer = io.BytesIO()
    image(signal).save(buffer, "AVIF", quality=95)
    data = buffer.getvalue()
    place = data.index(b"nclx") + 4
    return data if coding is None else data[:place] + struct.pack(">HH", *coding) + data[place + 4 :]


def cicp_profile(coding: tuple[int, int]) -> bytes:
    """The profile of sRGB with one more tag."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (count,) = struct.unpack_from(">I", plain, 128)
    table = [list(struct.unpack_from(">4sII", plain, 132 + 12 * number)) for number in range(count)]
    rest = plain[132 + 12 * count :]
    entries = b"".join(struct.pack(">4sII", tag, offset + 12, size) for tag, offset, size in table)
    entries += struct.pack(">4sII", b"cicp", len(plain) + 12, 12)
    body = plain[4:128] + struct.pack(">I", count + 1) + entries + rest + b"cicp\0\0\0\0" + bytes([*coding, 0, 1])
    return struct.pack(">I", len(body) + 4) + body


def with_profile(signal: np.ndarray, coding: tuple[int, int] | None) -> bytes:
    buffer = io.BytesIO()
    more = {} if coding is None else {"icc_profile": cicp_profile(coding)}
    image(signal).save(buffer, "JPEG", quality=97, subsampling=0, **more)
    return buffer.getvalue()


def video(signal: np.ndarray, coding: tuple[int, int] | None) -> bytes:
    primaries, transfer = coding or (1, 1)
    matrix = 9 if coding else 1
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx265", rate=10)
        stream.height, stream.width = signal.shape[:2]
        stream.pix_fmt = "yuv420p10le"
        said = f"log-level=none:colorprim={primaries}:transfer={transfer}:colormatrix={matrix}"
        stream.options = {"x265-params": said, "crf": "12"}
        source = av.VideoFrame.from_ndarray(np.round(signal * 65535).astype(np.uint16), format="rgb48le")
        for number in range(5):
            frame: Any = source.reformat(
                format="yuv420p10le", dst_colorspace=matrix, src_color_range=2, dst_color_range=1
            )
            frame.color_primaries, frame.color_trc, frame.colorspace, frame.pts = primaries, transfer, matrix, number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


FILES = {".png": png, ".heic": heic, ".avif": avif, ".jpg": with_profile, ".mp4": video}


def shown(data: bytes, suffix: str) -> np.ndarray:
    decoder = decoder_for(Path("a" + suffix))
    assert decoder is not None
    segment = next(iter(decoder.decode(Path("a" + suffix), DecodeOptions(min_side=64), data).segments))
    assert segment.image is not None
    return np.asarray(segment.image)


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_files_that_say_so_are_shown_like_the_plain_picture(suffix: str, transfer: int) -> None:
    picture = scene()
    signal = coded(light_of(picture), transfer)
    found = shown(FILES[suffix](signal, (9, transfer)), suffix).astype(int)
    grey = shown(FILES[suffix](signal, None), suffix).astype(int)
    error, before = np.abs(found - picture).mean(), np.abs(grey - picture).mean()
    assert error < 7
    assert before > 2 * error


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("coding", [(1, 13), (1, 1), (9, 14), (12, 13)])
def test_other_codings_change_no_pixel(suffix: str, coding: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    data = FILES[suffix](scene() / 255, coding)
    found = shown(data, suffix)
    monkeypatch.setattr("mmsearch.media.hdr.to_srgb", lambda *_: pytest.fail("this is no HDR"))
    monkeypatch.setattr("mmsearch.media.image.reader.coding_of", lambda *_: None)
    assert np.array_equal(shown(data, suffix), found)


@pytest.mark.parametrize("suffix", [".png", ".heic", ".avif", ".jpg"])
def test_a_damaged_coding_costs_nothing_else(suffix: str) -> None:
    data = FILES[suffix](coded(light_of(scene()), PQ), (9, PQ))
    chance = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(data)
        for place in chance.integers(0, min(len(data), 2500), 3):
            changed[place] ^= int(chance.integers(1, 256))
        try:
            shown(bytes(changed), suffix)
        except MediaError as error:
            assert str(error)
