"""Pairs of an image and its captions, to train on: what was read, what was refused and why, and how it is split."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from mmsearch.core.errors import MediaError, UsageError
from mmsearch.core.types import Skip
from mmsearch.media.formats import IMAGE, RAW, format_by_content
from mmsearch.media.image.colour import flatten, to_srgb, upright
from mmsearch.media.image.metadata import exif_of
from mmsearch.media.image.pillow_guard import HEADER_BYTES, describe_content, open_image, pillow_guard

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.models.encoders.base import Encoder, FloatArray

LARGEST_PIXELS = 89_000_000


@dataclass(frozen=True)
class ImageSource:
    """Where the bytes of an image lie: a file, or ``size`` bytes from ``offset`` of an uncompressed tar file."""

    path: Path
    offset: int = 0
    size: int | None = None
    member: str = ""

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def read(self, min_side: int = 0) -> Image:
        """The picture, upright, RGB. JPEGs may come smaller, with at least twice ``min_side`` pixels a side.

        Raises:
            MediaError: the bytes cannot be read as a picture; the message is the reason.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return _picture(io.BytesIO(file.read(-1 if self.size is None else self.size)), min_side)
        except OSError as error:
            raise MediaError(f"cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class Pairs:
    """Images with one or more captions each, and every row that was refused with its reason.

    ``images[i]`` goes with ``captions[i]``. ``refused`` names rows of the source, not only files.
    """

    images: tuple[ImageSource, ...]
    captions: tuple[tuple[str, ...], ...]
    refused: tuple[Skip, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def caption_count(self) -> int:
        """How many (image, caption) pairs these are."""
        return sum(len(captions) for captions in self.captions)

    def take(self, rows: Iterable[int]) -> Pairs:
        """The images of these rows; the refusals stay with the whole."""
        rows = list(rows)
        return Pairs(tuple(self.images[row] for row in rows), tuple(self.captions[row] for row in rows))

    def split(self, held_out: float) -> tuple[Pairs, Pairs]:
        """(to train on, held out): about the fraction ``held_out`` of the images, chosen by their names.

        The same image falls on the same side whatever else is in the set, so pairs that are added later do not
        leak into what was learned before. Both sides have at least one image.
        """
        if not 0 < held_out < 1 or len(self) < 2:
            raise UsageError(
                f"cannot hold out a fraction of {held_out} of {len(self)} images: it must lie between 0 and 1, "
                "and there must be 2 images or more"
            )
        keys = [hashlib.sha256(f"{s.path.name}:{s.member}".encode("utf-8", "replace")).digest() for s in self.images]
        order = sorted(range(len(self)), key=keys.__getitem__)
        # By threshold, not by count: that is what keeps an image's side when the set grows.
        count = sum(int.from_bytes(key[:8], "big") < held_out * 2**64 for key in keys)
        count = min(max(count, 1), len(self) - 1)
        held = set(order[:count])
        return self.take(row for row in range(len(self)) if row not in held), self.take(sorted(held))


def without_unreadable(
    pairs: Pairs, progress: Callable[[int, int], None] = lambda done, total: None, workers: int = 4
) -> Pairs:
    """Decodes every image once and moves those that cannot be read to ``refused``.

    A truncated JPEG opens without complaint, so nothing less than decoding finds it; better now than in the
    middle of an epoch.
    """
    refused = list(pairs.refused)
    kept: list[int] = []
    with ThreadPoolExecutor(workers) as pool:
        for row, reason in enumerate(pool.map(_why_unreadable, pairs.images)):
            if reason is None:
                kept.append(row)
            else:
                refused.append(Skip(pairs.images[row].name, reason))
            progress(row + 1, len(pairs))
    good = pairs.take(kept)
    return Pairs(good.images, good.captions, tuple(refused))


def merge(rows: Sequence[tuple[ImageSource, str]], refused: Sequence[Skip]) -> Pairs:
    """(image, caption) rows to images with all their captions, in the order of first appearance."""
    captions: dict[ImageSource, list[str]] = {}
    for image, caption in rows:
        known = captions.setdefault(image, [])
        if caption not in known:
            known.append(caption)
    return Pairs(tuple(captions), tuple(tuple(texts) for texts in captions.values()), tuple(refused))


def _why_unreadable(image: ImageSource) -> str | None:
    try:
        image.read(64)
    except MediaError as error:
        return str(error)
    return None


def _picture(stream: IO[bytes], min_side: int) -> Image:
    header = stream.read(HEADER_BYTES)
    stream.seek(0)
    if not header:
        raise MediaError("empty file")
    format_ = format_by_content(header, IMAGE)
    if format_ is None or format_.reader == RAW:
        raise MediaError(f"not an image to train on: {describe_content(header)}")
    with pillow_guard(format_.name), open_image(stream, format_) as image:
        if image.width * image.height > LARGEST_PIXELS:
            raise MediaError(f"too large: {image.width} × {image.height}, the limit is 89 megapixels")
        orientation = 1 if image.format == "TIFF" else exif_of(image).orientation
        if min_side:
            image.draft("RGB" if image.mode in {"RGB", "YCbCr"} else None, (2 * min_side, 2 * min_side))
        image.load()
        return upright(to_srgb(flatten(image), image.info.get("icc_profile")), orientation).copy()


def image_vectors(encoder: Encoder, images: Sequence[ImageSource]) -> FloatArray:
    """n images, a few in memory at a time, to (n, dim) rows of length 1."""
    vectors = [np.zeros((0, encoder.spec.dim), dtype=np.float32)]
    for start in range(0, len(images), 64):
        vectors.append(encoder.encode_images([one.read(encoder.input_size) for one in images[start : start + 64]]))
    return np.concatenate(vectors)
