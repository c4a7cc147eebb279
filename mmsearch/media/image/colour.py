"""Any Pillow image to eight bits of sRGB a channel: depth, palette, transparency, colour profiles, sizes."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmsearch.media import hdr
from mmsearch.media.hdr import Coding

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

MAX_ASPECT = 32
"""Images longer than so many times their shorter side are squeezed to it, so that an encoder which enlarges
the shorter side to its input does not make a giant of a picture one pixel wide."""


def flatten(image: Image) -> Image:
    """A loaded image to mode L, RGB, CMYK or LAB: eight bits, no palette, transparency laid on white."""
    if image.mode.startswith("I;16"):
        return _grey((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in {"I", "F"}:
        return _grey(_stretch(np.asarray(image)))
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in {"L", "RGB", "CMYK", "LAB"} else image.convert("RGB")


def _grey(values: npt.NDArray[np.uint8]) -> Image:
    from PIL import Image

    return Image.fromarray(values)


def _stretch(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """32-bit integers or floats to 0..255.

    The common ranges keep their meaning: floats of 0..1, and whole numbers of 0..255 and 0..65535. Anything
    else (heights, counts) is stretched from its smallest to its largest finite value.
    """
    numbers = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    whole = np.issubdtype(values.dtype, np.integer)
    ceiling = next((top for top in ((255, 65535) if whole else (1, 255)) if low >= 0 and high <= top), None)
    if ceiling is not None:
        low, high = 0.0, float(ceiling)
    scaled: npt.NDArray[np.float32] = (numbers - low) * (255.0 / max(high - low, 1e-12))
    return scaled.clip(0, 255).astype(np.uint8)


def _on_white(image: Image) -> Image:
    from PIL import Image

    if image.mode in {"La", "RGBa"}:
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


def shrink(image: Image, side: int) -> Image:
    """A flat image, smaller by a whole factor; the shorter side keeps ``side`` pixels if it had them."""
    factor = min(image.size) // side
    if factor >= 2:
        image = image.reduce(factor)
    width, height = image.size
    longest = MAX_ASPECT * min(width, height)
    if max(width, height) > longest:
        image = image.resize((min(width, longest), min(height, longest)), reducing_gap=2.0)
    return image


def to_srgb(image: Image, profile: bytes | None, coding: Coding | None = None) -> Image:
    """A flat image to RGB in the sRGB space. A profile that is broken or of another mode is ignored, and any where the
    colours are said to be ``coding`` of high dynamic range.
    """
    if coding is not None and coding.is_hdr and image.mode in {"L", "RGB"}:
        from PIL import Image

        return Image.fromarray(hdr.to_srgb(np.asarray(image.convert("RGB")), coding))
    transform = None
    if image.mode == "LAB" or (profile and isinstance(profile, bytes)):
        transform = _transform(b"" if image.mode == "LAB" else profile or b"", image.mode)
    if transform is not None:
        image = transform.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """The way from a profile to sRGB, or ``None``: it is sRGB already, or cannot be used.

    Transforms can be shared by threads: lcms2 keeps nothing in them while it converts.
    """
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        if profile and ImageCms.getProfileDescription(source).strip().startswith("sRGB") and mode == "RGB":
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def upright(image: Image, orientation: int) -> Image:
    """Undoes an EXIF orientation, 1 to 8 (TIFF 6.0, tag 274); other values mean nothing."""
    from PIL.Image import Transpose

    method = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)
