"""Very wide and very tall pictures: panoramas, strips, long screenshots.

An image encoder sees a square. Of a panorama, a centre crop sees the middle, and squeezing it makes everything thin; so
such a picture becomes several segments, squares side by side that overlap a little, and is found by any of them.
benchmarks/wide_images.py compares the ways.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

WIDE = 2.0
"""A picture is cut if its longer side has more than so many times the pixels of the shorter one."""
OVERLAP = 0.25
"""Of a square's side, at least so much is in its neighbour too: what lies at a cut is whole in one of them."""
MAX_PARTS = 12
"""A picture more than about nine times as long as wide gets no squares but this number of longer pieces."""


def parts(image: Image) -> list[Image]:
    """The pieces of a wide picture from left to right, of a tall one from top to bottom; else the picture itself.

    All pieces are equally large and evenly spaced, and together they show the whole picture.
    """
    width, height = image.size
    longer, shorter = max(width, height), min(width, height)
    if longer <= WIDE * shorter:
        return [image]
    step = 1 - OVERLAP
    count = min(math.ceil((longer / shorter - OVERLAP) / step - 1e-9), MAX_PARTS)
    side = max(shorter, math.ceil(longer / (1 + (count - 1) * step)))
    starts = [round(number * (longer - side) / (count - 1)) for number in range(count)]
    spans = [(start, start + side) for start in starts]
    return [image.crop((a, 0, b, height) if width > height else (0, a, width, b)) for a, b in spans]
