"""What models of open_clip and transformers do to a picture before it becomes numbers, with Pillow alone.

Both libraries resize with Pillow too and differ in nothing but arithmetic around it, which this file repeats to the
pixel: the transforms of torchvision (for open_clip) import torch, which indexing with an exported encoder must not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDEST = 16
RESAMPLINGS = {"bilinear": 2, "bicubic": 3}
"""Pillow's numbers."""


@dataclass(frozen=True)
class Preparation:
    """A picture to ``height`` × ``width`` pixels.

    ``mode``: ``squash`` gives up the aspect ratio; ``shortest`` fills the input and cuts off what is too much,
    ``longest`` shows the whole picture on a ground of the colour ``fill``. ``resample`` is Pillow's number.
    ``shorter_side``: what the shorter side is brought to before cutting, in pixels; 0 is as long as the input needs.
    ``rounds``: where the middle does not lie on a pixel, torchvision goes to the even one, transformers down.
    """

    height: int
    width: int
    mode: Literal["squash", "shortest", "longest"]
    resample: int = RESAMPLINGS["bicubic"]
    shorter_side: int = 0
    rounds: bool = True
    fill: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def of_open_clip(cls, cfg: Mapping[str, Any]) -> Preparation:
        """From a ``preprocess_cfg``; as ``open_clip.transform.image_transform`` reads it.

        Raises:
            EncoderError: it asks for what is not known here.
        """
        size, mode, method = cfg["size"], cfg["resize_mode"], cfg["interpolation"]
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
        if mode not in ("squash", "shortest", "longest") or method not in (*RESAMPLINGS, "random"):
            raise EncoderError(
                f"the model resizes pictures by {mode!r} and {method!r}; expected squash, shortest or longest, and"
                " bilinear or bicubic"
            )
        is_bilinear = method == "bilinear" and not (mode == "shortest" and height != width)  # open_clip forgets it then
        fill = cfg.get("fill_color", 0)
        colours = (int(fill),) * 3 if isinstance(fill, (int, float)) else tuple(int(v) for v in fill)
        return cls(height, width, mode, RESAMPLINGS["bilinear" if is_bilinear else "bicubic"], fill=colours[:3])  # type: ignore[arg-type]

    @classmethod
    def of_transformers(cls, processor: Any) -> Preparation | None:
        """From an image processor; ``None`` where it does more than resizing and cutting."""
        size, crops = dict(processor.size or {}), bool(getattr(processor, "do_center_crop", False))
        if not getattr(processor, "do_resize", False) or getattr(processor, "do_pad", False):
            return None
        resample = int(processor.resample)
        if not crops:
            known = size.get("height") and size.get("width")
            return cls(int(size["height"]), int(size["width"]), "squash", resample) if known else None
        crop, shorter = dict(processor.crop_size), size.get("shortest_edge")
        if not shorter or size.get("longest_edge") or shorter < max(crop["height"], crop["width"]):
            return None
        return cls(int(crop["height"]), int(crop["width"]), "shortest", resample, int(shorter), rounds=False)

    def __call__(self, image: Image) -> npt.NDArray[np.uint8]:
        """An upright picture of any mode to (height, width, 3) uint8."""
        if self.mode == "squash":
            return _pixels(image.resize((self.width, self.height), self.resample))
        image = without_far_ends(image) if self.mode == "shortest" else image
        fitted = image.resize(self._fitted(*image.size), self.resample)
        if self.mode == "longest":
            fitted = self._padded(fitted)
        left, top = (self._half(have - want) for have, want in zip(fitted.size, (self.width, self.height), strict=True))
        return _pixels(fitted.crop((left, top, left + self.width, top + self.height)))

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to resize to; the aspect ratio stays."""
        if self.mode == "shortest" and (self.shorter_side or self.height == self.width):
            side, longer = self.shorter_side or self.height, max(width, height)
            longer = int(side * longer / min(width, height))
            return (side, longer) if width <= height else (longer, side)
        ratios = height / self.height, width / self.width
        ratio = max(ratios) if self.mode == "longest" else min(ratios)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def _padded(self, image: Image) -> Image:
        from PIL import ImageOps

        spare = [max(0, self.width - image.width), max(0, self.height - image.height)]
        before = [room // 2 for room in spare]
        after = [(room + 1) // 2 for room in spare]
        return ImageOps.expand(image.convert("RGB"), (*before, *after), fill=self.fill)

    def _half(self, spare: int) -> int:
        return round(spare / 2) if self.rounds else spare // 2


def without_far_ends(image: Image) -> Image:
    """A very long or tall picture without what a crop of its middle square cuts off anyway: scaling a 1 × 5,000 image
    up first would take gigabytes.
    """
    width, height = image.size
    if max(width, height) <= _WIDEST * min(width, height):
        return image
    half = 2 * min(width, height)
    x, y = width // 2, height // 2
    return image.crop((max(x - half, 0), max(y - half, 0), min(x + half, width), min(y + half, height)))


def triple(value: float | Sequence[float]) -> list[float]:
    """One number for each of three colours."""
    return [float(value)] * 3 if isinstance(value, (int, float)) else [float(v) for v in value]


def _pixels(image: Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))
