"""Images: every format decodes upright, in sRGB, not larger than needed, or is refused with a reason."""

from __future__ import annotations

import io
import itertools
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from mmsearch.core.errors import MediaError
from mmsearch.core.types import MediaInfo
from mmsearch.media import SUFFIXES, DecodedSegment, DecodeOptions, decoder_for
from mmsearch.media.formats import IMAGE, RAW, suffixes_of
from mmsearch.media.image.reader import ImageDecoder
from mmsearch.media.metadata.values import camera_name, parse_date
from mmsearch.media.metadata.xmp import read_xmp

OPTIONS = DecodeOptions(min_side=32)
DECODER = ImageDecoder()


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth picture without symmetry: red grows to the right, green downwards, a blue corner top left."""
    x = np.linspace(0, 200, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 200, height)[:, None].repeat(width, 1)
    blue = np.zeros((height, width))
    blue[: height // 3, : width // 3] = 220
    return Image.fromarray(np.stack([x, y, blue], axis=2).astype(np.uint8))


def save(path: Path, image: Image.Image, format_: str, **extra: object) -> Path:
    if format_ == "HEIF":
        pillow_heif.from_pillow(image).save(path, quality=95, **extra)
    else:
        image.save(path, format_, **extra)
    return path


def decode(path: Path, options: DecodeOptions = OPTIONS) -> tuple[MediaInfo, list[DecodedSegment]]:
    decoded = DECODER.decode(path, options)
    segments = list(decoded.segments)
    return (decoded.final_info() if decoded.final_info else decoded.info), segments


def picture(path: Path, options: DecodeOptions = OPTIONS) -> Image.Image:
    _, segments = decode(path, options)
    assert len(segments) == 1
    assert segments[0].text is None
    assert segments[0].start_s is None
    image = segments[0].image
    assert image is not None
    assert image.mode == "RGB"
    return image


def mean_error(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


LOSSY = {"quality": 95}
MATRIX = [
    ("a.jpg", "JPEG", LOSSY, 3.0),
    ("a.jpeg", "JPEG", {**LOSSY, "progressive": True}, 3.0),
    ("a.jpe", "JPEG", {**LOSSY, "subsampling": 0}, 3.0),
    ("a.jfif", "JPEG", {**LOSSY, "optimize": True}, 3.0),
    ("a.png", "PNG", {}, 0.0),
    ("a.webp", "WEBP", {"lossless": True}, 0.0),
    ("b.webp", "WEBP", LOSSY, 4.0),
    ("a.tif", "TIFF", {}, 0.0),
    ("a.tiff", "TIFF", {"compression": "tiff_lzw"}, 0.0),
    ("b.tiff", "TIFF", {"compression": "tiff_adobe_deflate"}, 0.0),
    ("c.tiff", "TIFF", {"big_tiff": True}, 0.0),
    ("a.bmp", "BMP", {}, 0.0),
    ("a.heic", "HEIF", {}, 4.0),
    ("a.heif", "HEIF", {}, 4.0),
    ("a.hif", "HEIF", {}, 4.0),
    ("a.avif", "AVIF", {"quality": 95}, 4.0),
    ("a.jp2", "JPEG2000", {"irreversible": False}, 0.0),
    ("a.j2k", "JPEG2000", {"no_jp2": True}, 0.0),
    ("a.ppm", "PPM", {}, 0.0),
    ("a.pnm", "PPM", {}, 0.0),
    ("a.gif", "GIF", {}, 12.0),
]


@pytest.mark.parametrize(("name", "format_", "extra", "tolerance"), MATRIX)
def test_every_format_shows_the_picture(
    tmp_path: Path, name: str, format_: str, extra: dict[str, object], tolerance: float
) -> None:
    source = scene()
    path = save(tmp_path / name, source, format_, **extra)
    assert mean_error(picture(path), source) <= tolerance
    info, _ = decode(path)
    assert (info.width, info.height) == source.size


def test_every_image_suffix_belongs_to_the_image_decoder() -> None:
    assert ImageDecoder().suffixes <= SUFFIXES
    for suffix in ImageDecoder().suffixes:
        assert isinstance(decoder_for(Path("X" + suffix.upper())), ImageDecoder)
    assert decoder_for(Path("a.exe")) is None
    assert decoder_for(Path("jpg")) is None


MODES: list[tuple[str, str, Callable[[Image.Image], Image.Image]]] = [
    ("PNG", "palette", lambda image: image.quantize(256)),
    ("PNG", "grey", lambda image: image.convert("L")),
    ("PNG", "two levels", lambda image: image.convert("L").point(lambda v: 255 * (v > 90)).convert("1")),
    ("TIFF", "grey", lambda image: image.convert("L")),
    ("TIFF", "cmyk", lambda image: image.convert("CMYK")),
    ("TIFF", "ycbcr", lambda image: image.convert("YCbCr")),
    ("JPEG", "grey", lambda image: image.convert("L")),
    ("JPEG", "cmyk, stored inverted as Adobe does", lambda image: image.convert("CMYK")),
    ("JPEG2000", "grey", lambda image: image.convert("L")),
    ("BMP", "palette", lambda image: image.quantize(256)),
    ("PPM", "grey", lambda image: image.convert("L")),
]


@pytest.mark.parametrize(("format_", "mode", "convert"), MODES)
def test_modes_keep_their_colours(
    tmp_path: Path, format_: str, mode: str, convert: Callable[[Image.Image], Image.Image]
) -> None:
    stored = convert(scene())
    extra = {"quality": 95} if format_ == "JPEG" else {}
    path = save(tmp_path / "image.png", stored, format_, **extra)
    assert mean_error(picture(path), stored.convert("RGB")) < 4.0


def test_cmyk_jpeg_with_a_profile_of_another_kind_still_decodes(tmp_path: Path) -> None:
    stored = scene().convert("CMYK")
    path = save(tmp_path / "a.jpg", stored, "JPEG", quality=95, icc_profile=wide_gamut_profile())
    assert b"Adobe" in path.read_bytes()[:6000]
    assert mean_error(picture(path), stored.convert("RGB")) < 2.0


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, format_: str) -> None:
    ramp = np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(ramp).save(path, format_)
    shown = np.asarray(picture(path))[..., 0].astype(int)
    assert np.abs(shown - ramp // 257).max() <= 1


def rgb16_png(values: np.ndarray) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write."""
    import zlib

    height, width, _ = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_rgb_png(tmp_path: Path) -> None:
    values = np.asarray(scene()).astype(np.uint16) * 257
    path = tmp_path / "deep.png"
    path.write_bytes(rgb16_png(values))
    assert mean_error(picture(path), scene()) <= 1.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 1, 64 * 96, dtype=np.float32), (0, 255)),
        (np.linspace(-5, 3000, 64 * 96, dtype=np.float32), (0, 255)),
        (np.full(64 * 96, np.nan, dtype=np.float32), (0, 0)),
        (np.linspace(0, 200, 64 * 96).astype(np.int32), (0, 200)),
        (np.linspace(0, 65535, 64 * 96).astype(np.int32), (0, 255)),
        (np.linspace(-(2**31), 2**31 - 1, 64 * 96).astype(np.int32), (0, 255)),
    ],
)
def test_floats_and_long_integers(tmp_path: Path, values: np.ndarray, expected: tuple[int, int]) -> None:
    path = tmp_path / "heights.tif"
    Image.fromarray(values.reshape(64, 96)).save(path, "TIFF")
    shown = np.asarray(picture(path))
    assert (int(shown.min()), int(shown.max())) == expected


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_transparency_is_laid_on_white(tmp_path: Path, format_: str) -> None:
    image = Image.new("RGBA", (96, 64), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 48, 64))
    image.paste((0, 0, 0, 128), (48, 0, 96, 20))
    path = save(tmp_path / "image.png", image, format_, **({"lossless": True} if format_ == "WEBP" else {}))
    shown = picture(path)
    for place, colour in (((80, 50), (255, 255, 255)), ((10, 10), (0, 0, 255)), ((80, 8), (127, 127, 127))):
        assert np.abs(np.subtract(shown.getpixel(place), colour)).max() <= 8


def test_transparent_palette_and_grey_are_laid_on_white(tmp_path: Path) -> None:
    palette = scene().quantize(16)
    palette.paste(3, (0, 0, 20, 20))
    palette.save(tmp_path / "p.png", transparency=3)
    grey = Image.new("LA", (96, 64), (0, 0))
    grey.save(tmp_path / "la.png")
    keyed = Image.new("RGB", (96, 64), (1, 2, 3))
    keyed.save(tmp_path / "key.png", transparency=(1, 2, 3))
    for name in ("p.png", "la.png", "key.png"):
        assert picture(tmp_path / name).getpixel((5, 5)) == (255, 255, 255)


INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_come_out_upright(tmp_path: Path, format_: str, orientation: int) -> None:
    """The oracle is Pillow's own exif_transpose, on a picture stored with the inverse turn."""
    exif = Image.Exif()
    exif[0x0112] = INVERSE[orientation]
    carrier = scene(400, 300)
    carrier.info["exif"] = exif.tobytes()
    turned = ImageOps.exif_transpose(Image.open(_with_exif(carrier, exif)))
    turned.info.clear()
    stored_exif = Image.Exif()
    stored_exif[0x0112] = orientation
    path = save(tmp_path / "image.jpg", turned, format_, exif=stored_exif.tobytes())
    info, segments = decode(path, DecodeOptions(min_side=75))
    image = segments[0].image
    assert image is not None
    assert (info.width, info.height) == (400, 300)
    assert mean_error(image, scene(400, 300).resize(image.size, Image.Resampling.BOX)) < 5.0


def _with_exif(image: Image.Image, exif: Image.Exif) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return buffer


def test_heif_turned_by_its_own_box_and_by_exif_is_turned_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "phone.heic", scene(), "HEIF", exif=exif.tobytes())
    assert b"irot" in path.read_bytes()
    info, segments = decode(path)
    assert segments[0].image is not None
    assert (info.width, info.height) == segments[0].image.size == (64, 96)
    assert mean_error(segments[0].image, scene().transpose(Image.Transpose.ROTATE_270)) < 4.0


def test_broken_orientation_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    path = save(tmp_path / "a.jpg", scene(), "JPEG", exif=exif)
    assert picture(path).size == (96, 64)


def wide_gamut_profile() -> bytes:
    """Display P3 as a matrix profile, made from sRGB's by exchanging the three primaries."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.2412, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.1571, 0.06657, 0.78407),
    }
    for number in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * number
        tag, offset = bytes(data[entry : entry + 4]), int.from_bytes(data[entry + 4 : entry + 8], "big")
        for value, place in zip(primaries.get(tag, ()), (8, 12, 16), strict=False):
            data[offset + place : offset + place + 4] = struct.pack(">i", round(value * 65536))
        if tag == b"desc":
            place = data.index("sRGB".encode("utf-16-be"), offset)
            data[place : place + 8] = "wide".encode("utf-16-be")
    return bytes(data)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_colour_profiles_are_converted(tmp_path: Path, format_: str) -> None:
    image = Image.new("RGB", (96, 64), (200, 120, 60))
    extra = {"icc_profile": wide_gamut_profile(), **({} if format_ in {"PNG", "TIFF"} else {"quality": 100})}
    plain = save(tmp_path / "plain.png", image, "PNG")
    wide = save(tmp_path / "wide.png", image, format_, **extra)
    red, green, blue = picture(wide).getpixel((40, 40))
    assert picture(plain).getpixel((40, 40)) == (200, 120, 60)
    # In sRGB the same colour needs more red and less green and blue: P3's primaries lie farther out.
    assert red > 205
    assert green < 119
    assert blue < 55


@pytest.mark.parametrize("profile", [b"", b"rubbish", wide_gamut_profile()[:200]])
def test_broken_profiles_are_ignored(tmp_path: Path, profile: bytes) -> None:
    path = save(tmp_path / "a.png", scene(), "PNG", icc_profile=profile)
    assert mean_error(picture(path), scene()) == 0


def test_profile_of_another_mode_is_ignored(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", scene().convert("L"), "PNG", icc_profile=wide_gamut_profile())
    assert mean_error(picture(path), scene().convert("L").convert("RGB")) == 0


@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (3001, 997), (640, 480), (449, 448), (50, 40)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_reduced_to_no_less_than_twice_the_models_side(tmp_path: Path, width: int, height: int, format_: str) -> None:
    source = scene(width, height)
    path = save(
        tmp_path / "a.jpg", source, format_, **({"quality": 90} if format_ == "JPEG" else {"compress_level": 1})
    )
    info, segments = decode(path, DecodeOptions(min_side=224, cut_wide=False))
    image = segments[0].image
    assert image is not None
    assert (info.width, info.height) == (width, height)
    assert min(image.size) >= min(448, width, height)
    assert min(image.size) < 2 * 448 or format_ == "JPEG"
    assert image.width / image.height == pytest.approx(width / height, rel=0.01)


def noisy_photo(width: int, height: int) -> Image.Image:
    """Detail at all scales, as photographs have it (a spectrum that falls with the frequency)."""
    generator = np.random.default_rng(5)
    layers = np.zeros((height, width, 3), np.float32)
    for step in (4, 16, 64, 256):
        coarse = generator.normal(size=(height // step + 2, width // step + 2, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            layers[..., channel] += np.asarray(layer) * step**0.5
    return Image.fromarray(np.clip(128 + layers * 5, 0, 255).astype(np.uint8))


def test_reduced_jpeg_gives_the_model_the_same_input(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", noisy_photo(2400, 1800), "JPEG", quality=90)
    size = (299, 224)
    fast = picture(path, DecodeOptions(min_side=224)).resize(size, Image.Resampling.BICUBIC)
    slow = Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    assert mean_error(fast, slow) < 1.0
    a, b = (np.asarray(image, np.float32).ravel() - 128 for image in (fast, slow))
    assert float(a @ b / np.sqrt((a @ a) * (b @ b))) > 0.995


@pytest.mark.parametrize(("width", "height"), [(1, 60_000), (60_000, 1), (1, 1), (3, 2000)])
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF"])
def test_absurd_shapes_survive(tmp_path: Path, width: int, height: int, format_: str) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (width, height), "teal"), format_)
    info, segments = decode(path)
    image = segments[0].image
    assert image is not None
    assert (info.width, info.height) == (width, height)
    assert max(image.size) <= 32 * min(image.size)
    assert np.abs(np.subtract(image.getpixel((0, 0)), (0, 128, 128))).max() <= 3


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "BMP", "HEIF", "GIF", "WEBP", "AVIF", "JPEG", "PPM", "JPEG2000"])
def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, format_: str) -> None:
    path = save(tmp_path / "a.png", scene(200, 100), format_)
    with pytest.raises(MediaError, match=r"200 × 100 .* limit is 0\.01; raise it with --max-megapixels"):
        DECODER.decode(path, DecodeOptions(max_megapixels=0.01))
    assert decode(path, DecodeOptions(max_megapixels=0.02))[1]


def test_a_decompression_bomb_is_refused_and_pillows_guard_is_left_alone(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    header = b"\x89PNG\r\n\x1a\n" + _png_header(60_000, 60_000)
    (tmp_path / "bomb.png").write_bytes(header)
    with pytest.raises(MediaError, match=r"3600\.0 megapixels"):
        DECODER.decode(tmp_path / "bomb.png", OPTIONS)
    assert before == Image.MAX_IMAGE_PIXELS


def _png_header(width: int, height: int) -> bytes:
    import zlib

    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    empty = b"IDAT"
    return b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (body, empty)
    )


def test_a_raised_limit_goes_beyond_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own guard, here made tiny, would warn or refuse; the limit of the options is what counts."""
    path = save(tmp_path / "a.png", scene(300, 200), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert picture(path).size == (100, 67)


DAMAGED = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF", "AVIF", "JPEG2000", "PPM"]


@pytest.mark.parametrize("format_", DAMAGED)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused_with_a_reason(tmp_path: Path, format_: str, share: float) -> None:
    path = save(tmp_path / "a.png", noisy_photo(120, 90), format_)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(MediaError) as caught:
        decode(path)
    assert str(caught.value).startswith((f"truncated {format_}", f"damaged {format_}"))
    assert str(path) not in str(caught.value)


def test_truncated_jpeg_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", noisy_photo(120, 90), "JPEG")
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(MediaError, match="truncated JPEG: the file ends before its picture does"):
        decode(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"Dear diary, this is no picture at all.\n", "not an image: its content is text"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + bytes(100), "video"),
        (b"\x1a\x45\xdf\xa3" + bytes(50), "Matroska"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04" + bytes(40), "archive"),
        (bytes(4000), "zero bytes"),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (b"\x93\x12\x99abc", "no known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),
        (b"\xff\xd8\xff", "truncated JPEG|damaged JPEG"),
    ],
)
def test_what_is_no_image_is_refused_with_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=reason):
        decode(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(MediaError, match="cannot be read"):
            DECODER.decode(path, OPTIONS)


@pytest.mark.parametrize("name", ["a.jpg", "a.heic", "a.nef", "a.gif", "a.cr3"])
def test_the_content_decides_not_the_name(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, scene(), "PNG")
    assert mean_error(picture(path), scene()) == 0


def plain_frames(colours: list[str]) -> list[Image.Image]:
    return [Image.new("RGB", (64, 48), colour) for colour in colours]


@pytest.mark.parametrize(
    ("name", "extra"), [("a.gif", {}), ("a.webp", {"lossless": True}), ("a.png", {}), ("a.avif", {})]
)
def test_animations_are_short_videos(tmp_path: Path, name: str, extra: dict[str, object]) -> None:
    frames = plain_frames(["red", "red", "lime", "blue"])
    # Pillow's GIF writer merges equal frames, so the second one differs by a pixel.
    frames[1].putpixel((0, 0), (250, 0, 0))
    path = tmp_path / name
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[200, 300, 400, 500], loop=0, **extra)
    info, segments = decode(path)
    times = [(segment.start_s, segment.end_s) for segment in segments]
    assert times == [pytest.approx(pair, abs=0.01) for pair in ((0.0, 0.5), (0.5, 0.9), (0.9, 1.4))]
    assert info.duration_s == pytest.approx(1.4, abs=0.01)
    for segment, colour in zip(segments, ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=True):
        assert segment.image is not None
        assert np.abs(np.subtract(segment.image.getpixel((30, 30)), colour)).max() <= 6


def test_long_animations_give_eight_segments(tmp_path: Path) -> None:
    frames = plain_frames([f"hsl({12 * number}, 100%, 50%)" for number in range(30)])
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    info, segments = decode(tmp_path / "a.gif")
    assert len(segments) == 8
    assert info.duration_s == pytest.approx(3.0)
    for earlier, later in itertools.pairwise(segments):
        assert earlier.end_s == later.start_s
    assert segments[-1].end_s == pytest.approx(3.0)


def test_a_still_animation_has_one_segment_without_times(tmp_path: Path) -> None:
    frames = plain_frames(["navy"] * 3)
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100)
    _, segments = decode(tmp_path / "a.webp")
    assert [(segment.start_s, segment.end_s) for segment in segments] == [(None, None)]


def test_a_broken_tail_of_an_animation_keeps_what_came_before(tmp_path: Path) -> None:
    frames = [noisy_photo(64, 48).rotate(90 * number) for number in range(6)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(data[: len(data) * 2 // 3])
    info, segments = decode(tmp_path / "a.gif")
    assert 2 <= len(segments) <= 5
    assert info.note is None or "frames could be read" in info.note


def test_pages_of_a_tiff_are_segments(tmp_path: Path) -> None:
    pages = plain_frames(["red", "lime", "blue"])
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    info, segments = decode(tmp_path / "scan.tif")
    assert [segment.image.getpixel((9, 9)) for segment in segments if segment.image] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
    ]
    assert info.note is None


def test_thumbnail_pages_are_left_out_and_many_pages_bounded(tmp_path: Path) -> None:
    reduced = TiffImagePlugin.ImageFileDirectory_v2()
    reduced[254] = 1
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "a.tif"), True) as writer:
        scene().save(writer, "TIFF")
        writer.newFrame()
        scene(30, 20).save(writer, "TIFF", tiffinfo=reduced)
    assert len(decode(tmp_path / "a.tif")[1]) == 1
    pages = plain_frames(["red"] * 20)
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    info, segments = decode(tmp_path / "b.tif")
    assert len(segments) == 16
    assert info.note is not None


def rich_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = "Canon\0", "Canon EOS R5", "2001:01:01 00:00:00"
    exif[0x010E] = "Grandmother's boat"
    exif[0x9C9B] = "Üben\0".encode("utf-16-le")
    exif.get_ifd(0x8769).update({0x9003: "2021:07:14 18:30:05", 0xA434: "RF24-70mm F2.8"})
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 25.5), 3: "E", 4: (151.0, 12.0, 0.0)})
    return exif


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_exif_is_read(tmp_path: Path, format_: str) -> None:
    path = save(tmp_path / "a.jpg", scene(), format_, exif=rich_exif().tobytes())
    info, _ = decode(path)
    assert info.taken_at == "2021-07-14T18:30:05"
    assert info.camera == "Canon EOS R5"
    assert info.lens == "RF24-70mm F2.8"
    assert info.latitude == pytest.approx(-33.857083, abs=1e-5)
    assert info.longitude == pytest.approx(151.2, abs=1e-5)
    assert info.description is not None
    assert "Grandmother's boat" in info.description
    assert "Üben" in info.description


@pytest.mark.parametrize(
    "position",
    [
        {1: "N", 2: (TiffImagePlugin.IFDRational(1, 0),) * 3, 3: "E", 4: (1.0, 2.0, 3.0)},
        {1: "N", 2: (200.0, 0.0, 0.0), 3: "E", 4: (1.0, 2.0, 3.0)},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N"},
    ],
)
def test_bad_positions_are_none(tmp_path: Path, position: dict[int, object]) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update(position)
    info, _ = decode(save(tmp_path / "a.jpg", scene(), "JPEG", exif=exif))
    assert (info.latitude, info.longitude) == (None, None)


def test_undefined_seconds_count_as_zero(tmp_path: Path) -> None:
    exif = Image.Exif()
    undefined = TiffImagePlugin.IFDRational(0, 0)
    exif.get_ifd(0x8825).update({1: "N", 2: (10.0, 30.0, undefined), 3: "W", 4: (20.0, 15.0, undefined)})
    info, _ = decode(save(tmp_path / "a.jpg", scene(), "JPEG", exif=exif))
    assert (info.latitude, info.longitude) == (10.5, -20.25)


def test_names_of_cameras() -> None:
    assert camera_name("Canon", "Canon EOS 5D") == "Canon EOS 5D"
    assert camera_name("NIKON CORPORATION", "NIKON D90") == "NIKON D90"
    assert camera_name("Apple", "iPhone 12") == "Apple iPhone 12"
    assert camera_name(None, "X100") == "X100"
    assert camera_name("Leica", " ") == "Leica"
    assert camera_name(None, 7) is None


def test_dates() -> None:
    assert parse_date("2020:02:29 10:11:12") == "2020-02-29T10:11:12"
    assert parse_date("2020-02-29T10:11:12+02:00") == "2020-02-29T10:11:12"
    for never in ("0000:00:00 00:00:00", "2021:02:29 10:11:12", "    :  :  ", "", None, b"\xff", 5):
        assert parse_date(never) is None


XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 exif:DateTimeOriginal="2019-05-06T07:08:09">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">A red kite</rdf:li></rdf:Alt></dc:description>
<dc:subject><rdf:Bag><rdf:li>sky</rdf:li><rdf:li>wind</rdf:li></rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_xmp_is_read(tmp_path: Path, format_: str) -> None:
    extra: dict[str, object] = {"xmp": XMP.encode()}
    if format_ == "TIFF":
        extra = {"tiffinfo": {700: XMP.encode()}}
    info, _ = decode(save(tmp_path / "a.jpg", scene(), format_, **extra))
    assert info.description == "A red kite\nsky, wind"
    assert info.taken_at == "2019-05-06T07:08:09"


def test_entities_in_xmp_are_refused() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "boom"><!ENTITY b "&a;&a;">]>' + XMP.replace("A red kite", "&b;")
    assert read_xmp(bomb) == {}
    assert read_xmp(XMP.replace("A red kite", "&b;")) == {}
    inside = XMP.replace("<rdf:RDF", '<!DOCTYPE x [<!ENTITY a "boom">]><rdf:RDF', 1)
    assert read_xmp(inside) == {}
    for rubbish in (b"", b"<x:xmpmeta", "<x:xmpmeta></rdf>", "\0" * 50, b"\xff\xfe\x00", XMP[:300]):
        assert read_xmp(rubbish) == {}
    assert read_xmp(XMP.encode("utf-16"))["description"] == ["A red kite"]


def test_iptc_captions_are_read(tmp_path: Path) -> None:
    def data_set(number: int, text: bytes) -> bytes:
        return b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(text)) + text

    iptc = data_set(120, "Ein früher Morgen".encode()) + data_set(25, b"fog") + data_set(25, b"lake")
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + (b"\0" * (len(iptc) % 2))
    buffer = io.BytesIO()
    scene().save(buffer, "JPEG")
    data = buffer.getvalue()
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + data[2:])
    assert decode(path)[0].description == "Ein früher Morgen\nfog, lake"


def test_words_that_cameras_write_are_no_description(tmp_path: Path) -> None:
    for text in ("OLYMPUS DIGITAL CAMERA         ", "SONY DSC", "DCIM\\100MEDIA", "   "):
        exif = Image.Exif()
        exif[0x010E] = text
        info, _ = decode(save(tmp_path / "a.jpg", scene(), "JPEG", exif=exif))
        assert info.description is None or "MEDIA" in text


def test_corrupt_exif_is_silent_and_harmless(tmp_path: Path) -> None:
    exif = bytearray(rich_exif().tobytes())
    path = tmp_path / "a.jpg"
    for cut in range(8, len(exif), 7):
        save(path, scene(), "JPEG", exif=bytes(exif[:cut]))
        assert picture(path).size[0] in {96, 64}


def test_warnings_of_other_users_of_pillow_are_kept(tmp_path: Path) -> None:
    """Two threads at once: one decodes files with corrupt EXIF here, one uses Pillow as it likes."""
    path = tmp_path / "a.jpg"
    save(path, scene(), "JPEG", exif=rich_exif().tobytes()[:60])
    warned, failed = [], []

    def other() -> None:
        for _ in range(20):
            try:
                Image.open(path).getexif().get_ifd(0x8769)
            except UserWarning as warning:
                warned.append(warning)

    def ours() -> None:
        try:
            for _ in range(20):
                picture(path)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=other), threading.Thread(target=ours)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(warned) == 20
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.warn("still heard", UserWarning, stacklevel=1)
    assert len(seen) == 1


def tiff_with_previews(
    previews: list[bytes], orientation: int, magic: bytes = b"II\x2a\x00", named: bool = True
) -> bytes:
    """A little-endian TIFF as cameras write it: directory 0 with tags, every preview in a directory of its own."""
    body = bytearray(magic + struct.pack("<I", 8))
    places: list[int] = []
    for number, preview in enumerate(previews):
        entries = (
            [(0x0112, 3, 1, orientation), (0x0110, 2, 4, int.from_bytes(b"R5x\0", "little"))] if not number else []
        )
        size = 2 + 12 * (len(entries) + (2 if named else 0)) + 4
        start = len(body)
        data_at = start + size
        if named:
            entries += [(0x0201, 4, 1, data_at), (0x0202, 4, 1, len(preview))]
        last = number == len(previews) - 1
        body += struct.pack("<H", len(entries))
        for tag, kind, count, value in sorted(entries):
            body += struct.pack("<HHII", tag, kind, count, value)
        body += struct.pack("<I", 0 if last else data_at + len(preview)) + preview
        places.append(data_at)
    return bytes(body)


def jpeg(image: Image.Image, **extra: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, **extra)
    return buffer.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def cr3_file(preview: bytes, orientation: int) -> bytes:
    tags = tiff_with_previews([b""], orientation, named=False)
    metadata = box(b"uuid", bytes.fromhex("85c0b687820f11e08111f4ce462b6a48") + box(b"CMT1", tags))
    shown = box(b"PRVW", bytes(16) + preview)
    holder = box(b"uuid", bytes.fromhex("eaf42b5e1c984b88b9fbb7dc406e4d16") + bytes(8) + shown)
    return box(b"ftyp", b"crx \0\0\0\1crx isom") + box(b"moov", metadata) + holder


def raw_file(suffix: str, orientation: int = 6) -> bytes:
    upright = scene(360, 240)
    stored = upright.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else upright
    thumb = jpeg(stored.resize((24, 36)))
    preview, full = jpeg(stored), jpeg(stored.resize((stored.width * 2, stored.height * 2)))
    lossless = b"\xff\xd8\xff\xc3\x00\x0b\x0e\x10\x00\x10\x00\x01\x01\x11\x00" + bytes(200)
    if suffix == ".cr3":
        return cr3_file(preview, orientation)
    if suffix == ".raf":
        exif = Image.Exif()
        exif[0x0112], exif[0x0110] = orientation, "R5x"
        content = jpeg(stored, exif=exif)
        return b"FUJIFILMCCD-RAW 0201".ljust(84, b"\0") + struct.pack(">II", 100, len(content)) + bytes(8) + content
    magic = {".orf": b"IIRO", ".rw2": b"IIU\0"}.get(suffix, b"II\x2a\x00")
    # Olympus hides its preview in the maker's notes: no tag names it, only a search finds it.
    data = tiff_with_previews([thumb, full, preview, lossless], orientation, magic, named=suffix != ".orf")
    return data + bytes(1000)


@pytest.mark.parametrize("suffix", sorted(suffixes_of(IMAGE, reader=RAW)))
def test_camera_raw_shows_its_preview_upright(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(raw_file(suffix))
    info, segments = decode(path, DecodeOptions(min_side=60))
    image = segments[0].image
    assert image is not None
    assert min(image.size) >= 120
    assert mean_error(image, scene(360, 240).resize(image.size)) < 6.0
    assert info.camera == "R5x"
    assert info.width is not None
    assert info.height is not None
    assert info.width > info.height


def test_the_smallest_preview_that_is_large_enough_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.nef"
    path.write_bytes(raw_file(".nef", orientation=1))
    assert picture(path, DecodeOptions(min_side=120)).size == (360, 240)
    assert picture(path, DecodeOptions(min_side=200)).size == (720, 480)
    assert picture(path, DecodeOptions(min_side=2000)).size == (720, 480)


def test_a_damaged_preview_gives_way_to_another(tmp_path: Path) -> None:
    stored = noisy_photo(360, 240)
    broken = bytearray(jpeg(stored))
    broken[-len(broken) // 2 :] = b""
    data = tiff_with_previews([jpeg(stored.resize((180, 120))), bytes(broken)], 1)
    (tmp_path / "a.arw").write_bytes(data)
    assert picture(tmp_path / "a.arw", DecodeOptions(min_side=100)).size == (180, 120)


def test_raw_without_preview_is_refused_and_linear_dng_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.cr2").write_bytes(tiff_with_previews([b"\0" * 500], 1, named=False))
    (tmp_path / "a.orf").write_bytes(b"IIRO" + bytes(500))
    (tmp_path / "a.cr3").write_bytes(box(b"ftyp", b"crx \0\0\0\1crx isom") + bytes(300))
    for name in ("a.cr2", "a.orf", "a.cr3"):
        with pytest.raises(MediaError, match="no preview picture in this camera RAW file; export"):
            decode(tmp_path / name)
    save(tmp_path / "scan.dng", scene(), "TIFF")
    assert mean_error(picture(tmp_path / "scan.dng"), scene()) == 0


def samples() -> dict[str, bytes]:
    found = {}
    for format_ in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM"):
        buffer = io.BytesIO()
        exif = {"exif": rich_exif().tobytes()} if format_ in {"JPEG", "PNG", "WEBP", "TIFF", "AVIF"} else {}
        scene(40, 30).save(buffer, format_, **exif)
        found[format_] = buffer.getvalue()
    buffer = io.BytesIO()
    pillow_heif.from_pillow(scene(40, 30)).save(buffer)
    found["HEIF"] = buffer.getvalue()
    frames = plain_frames(["red", "lime"])
    for format_ in ("GIF", "WEBP"):
        buffer = io.BytesIO()
        frames[0].save(buffer, format_, save_all=True, append_images=frames[1:])
        found[f"animated {format_}"] = buffer.getvalue()
    for suffix in (".nef", ".cr3", ".raf", ".orf"):
        found[suffix] = raw_file(suffix)
    return found


SAMPLES = samples()
LENIENT = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def only_media_errors(path: Path) -> None:
    """Decodes all of a file; anything but a MediaError with a reason fails the test that calls."""
    decoder = decoder_for(path)
    assert decoder is not None
    try:
        for segment in decoder.decode(path, DecodeOptions(max_megapixels=4)).segments:
            assert (segment.image is None) != (segment.text is None)
    except MediaError as error:
        assert str(error)


@LENIENT
@given(data=st.binary(max_size=400), suffix=st.sampled_from(sorted(ImageDecoder().suffixes)))
def test_arbitrary_bytes_give_a_reason(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    only_media_errors(path)


@settings(LENIENT, max_examples=300)
@given(
    kind=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), max_size=6),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
    suffix=st.sampled_from([".jpg", ".nef", ".heic"]),
)
def test_damaged_files_give_a_picture_or_a_reason(
    tmp_path: Path, kind: str, changes: list[tuple[float, bytes]], keep: float, suffix: str
) -> None:
    data = bytearray(SAMPLES[kind])
    for place, replacement in changes:
        # Squared: damage to the beginning, where the structure is, tells more than damage to pixels.
        start = int(place**2 * len(data))
        data[start : start + len(replacement)] = replacement
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data[: int(len(data) * keep)])
    only_media_errors(path)
